"""The response to one forwarded request, on its way to the client.

Owns its ASGI messages, and in which form a failure is still possible. Views of the application have
Quart for that.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import trio

from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import UNKNOWN, Tokens, tokens_of
from proxy.http.bodies import Incoming
from proxy.http.errors import EVERYBODY, Problem
from proxy.http.headers import REQUEST_ID, Header, is_event_stream, to_client, value_of
from proxy.http.parsing import UPGRADED, UpstreamError
from proxy.http.upstream import Response
from proxy.naming.dialects import Dialect

Send = Callable[[Any], Awaitable[None]]

OK = 200
KEPT = 8  # pieces of an answer's end; the counts of its tokens are in the last ones
MOST_SAID = 16 * 1024  # bytes of a refusal that are passed on in an event
EVENTS_OF_OURS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    *EVERYBODY,
)


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    """Return the error that a model server has told of itself."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return None
    return error if isinstance(error, dict) and "message" in error else None


@attrs.define(eq=False)
class Answer:
    """The response.

    Attributes:
        send: the connection's ASGI send.
        call: the request.
        dialect: how its API says things in a stream.
        status: of the response; 0 before it has begun.
        complete: whether all of the body but its end was sent.
        problem: what the client was, or would have to be, told of.
    """

    send: Send
    call: Call
    dialect: Dialect
    status: int = 0
    complete: bool = False
    problem: Problem | None = None
    _headers: list[Header] = attrs.field(factory=list, init=False)
    _events: bool = False
    _first: bytes = b""
    _kept: deque[bytes] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)

    @property
    def outcome(self) -> int:
        """The status that the answer has or, of a stream that failed, would have to have."""
        return self.problem.status if self.problem else self.status

    async def relay(self, response: Response, incoming: Incoming) -> None:
        """Pass a model server's answer on, as it arrives."""
        if self.status:
            await self._go_on(response)
            return
        self._headers = headers = to_client(response.headers, self.call.request_id.encode())
        fixed = any(name in (b"content-length", b"content-encoding") for name, _ in headers)
        self._events = not fixed and is_event_stream(headers)
        if response.status == UPGRADED:
            await self._tunnel(response, incoming)
        else:
            # Until there is a body, a server that fails can still be told of with a status.
            first = await response.read() if fixed else b""
            await self._begin(response.status, headers)
            await self._relay_body(response, first)

    async def _relay_body(self, response: Response, first: bytes = b"") -> None:
        call, send, kept = self.call, self.send, self._kept
        while piece := first or await response.read():
            first = b""
            if not call.size:
                self._first = piece
                call.first_byte = trio.current_time()
            call.size += len(piece)
            kept.append(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        self.complete = True

    async def _go_on(self, response: Response) -> None:
        """Follow what was said while the model loaded with its answer."""
        if response.status == OK and is_event_stream(response.headers):
            self._headers = list(response.headers)
            await self._relay_body(response)
            return
        said = b""
        while len(said) < MOST_SAID and (piece := await response.read()):
            said += piece
        text = f"the model server answered {response.status}: {said.decode('utf-8', 'replace')}"
        status = response.status if response.status >= 400 else 502
        await self.refuse(Problem(status, text[:MOST_SAID], given=_error_in(said)))

    async def _tunnel(self, response: Response, incoming: Incoming) -> None:
        """Pass bytes both ways, until either side has enough."""
        again = [(b"connection", b"upgrade"), (b"upgrade", value_of(response.headers, b"upgrade"))]
        await self._begin(UPGRADED, [*self._headers, *again])

        async def to_server() -> None:
            while piece := await incoming.read():
                await response.send(piece)

        failure: UpstreamError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(to_server)
            try:
                await self._relay_body(response)
            except UpstreamError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def say(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answer with a whole body of our own."""
        length = (b"content-length", b"%d" % len(body))
        await self._begin(status, [*headers, length, (REQUEST_ID, self.call.request_id.encode())])
        await self.write(body)
        self.complete = True

    async def begin_events(self) -> None:
        """Begin a stream of events before there is anything to pass on."""
        self._events = True
        request_id = (REQUEST_ID, self.call.request_id.encode())
        await self._begin(OK, [*EVENTS_OF_OURS, request_id])

    async def refuse(self, problem: Problem) -> None:
        """Tell the client of a problem, in whatever form is still possible."""
        self.problem = problem = self.dialect.named(problem)
        if not self.status:
            accept = value_of(self.call.headers, b"accept")
            await self.say(problem.status, *problem.said_to(accept))
        elif self._events and (not self._kept or self._kept[-1].endswith((b"\n\n", b"\r\n\r\n"))):
            await self.write(self.dialect.failure(problem))
            self.complete = True
        # Otherwise the body stays without its end, which is how a client sees that it was cut.

    async def finish(self) -> None:
        """Send the end of the body, if there was one; else the connection ends without it."""
        if self.complete:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def tokens(self) -> Tokens:
        """Return what the answer says of its tokens."""
        if not self._kept or value_of(self._headers, b"content-encoding"):
            return UNKNOWN
        first = self._first if self._first is not self._kept[0] else b""
        return tokens_of(b"".join((first, *self._kept)))

    async def _begin(self, status: int, headers: list[Header]) -> None:
        self.status = status
        self.call.response_headers = headers
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
