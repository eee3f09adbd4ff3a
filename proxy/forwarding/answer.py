"""The response to one forwarded request, on its way to the client.

Owns what is passed on, what llamadoze sends of its own, and the form that a failure can still take.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

import attrs
import trio

from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import UNKNOWN, Tokens, tokens_of
from proxy.forwarding.tunnel import CLOSING, NOBODY_ELSE, Courtesy, Tunnel
from proxy.http.bodies import Incoming
from proxy.http.errors import EXPECTED, NOT_FOR_CACHES, Problem, ready_to_say
from proxy.http.exchange import Exchange
from proxy.http.headers import Header, first_values, ids, is_event_stream, to_client, value_of
from proxy.http.parsing import UPGRADED, UpstreamError
from proxy.http.upstream import Response
from proxy.naming.dialects import Dialect
from supervisor.states.durations import seconds

LAST_EVENTS = (b"data: [DONE]", b'{"type":"message_stop"}', b'{"type": "message_stop"}')
OK = 200
NO_CONTENT = 204
KEPT = 8  # last pieces of an answer, which contain the counts of tokens
TO_SAY_GOODBYE = 1.0  # seconds
BETWEEN_COMMENTS = 15.0  # seconds; proxies such as nginx often give up after 60
COMMENT = b": llamadoze waits for the model\n\n"
MOST_SAID = 16 * 1024  # bytes of a model server's error that are passed on in an event
EVENTS_OF_OURS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    NOT_FOR_CACHES,
    (b"x-accel-buffering", b"no"),
)


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    """Return the error in a model server's own answer, if there is one."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return None
    return error if isinstance(error, dict) and "message" in error else None


async def _end_when_in_the_way(tunnel: Tunnel, scope: trio.CancelScope) -> None:
    await tunnel.until_in_the_way()
    scope.cancel()


class Source(Protocol):
    """A counter of the pieces that come from a model server."""

    heard: int


@attrs.define(eq=False)
class Unheard:
    """A counter that no task reads."""

    heard: int = 0


UNHEARD = Unheard()


@attrs.define(eq=False)
class Comments:
    """Comments in a stream that has begun, so that it is not silent until the model's first byte.

    Attributes:
        write: sends a part of the body.
    """

    write: Callable[[bytes], Awaitable[None]]
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """Send a comment at intervals. All clients of event streams skip comments."""
        while not self._over.is_set():
            with trio.move_on_after(BETWEEN_COMMENTS) as silence:
                await self._over.wait()
            if silence.cancelled_caught:
                await self.write(COMMENT)
        self._ended.set()

    async def end(self) -> None:
        """Send no more comments, and return when the last is completely sent."""
        self._over.set()
        await self._ended.wait()


@attrs.define(eq=False)
class Answer:
    """The response.

    Attributes:
        exchange: the exchange that is answered.
        call: the request.
        dialect: the form of events and errors in the streams of the request's API.
        cors: headers that say which sites may read the answer.
        status: of the response; 0 before it has begun.
        complete: whether all of the body was sent, maybe without its end marker.
        problem: the failure of the request, even if the client can no longer be told.
        source: counts what comes from the model server.
    """

    exchange: Exchange
    call: Call
    dialect: Dialect
    cors: Sequence[Header] = ()
    status: int = 0
    complete: bool = False
    problem: Problem | None = None
    source: Source = UNHEARD
    _is_coded: bool = attrs.field(default=False, init=False)
    _events: bool = False
    _first: bytes = b""
    _kept: deque[bytes] = attrs.field(factory=partial(deque, maxlen=KEPT), init=False)
    _comments: Comments = attrs.field(init=False)  # exists while a begun stream continues

    @property
    def first(self) -> bytes:
        """The first piece of the body."""
        return self._first

    @property
    def outcome(self) -> int:
        """The status of the answer. For a stream that failed, the status of its failure."""
        return self.problem.status if self.problem else self.status

    @property
    def said_all(self) -> bool:
        """Whether the client has everything. It may disconnect after the last event of a stream."""
        return self.complete or (
            self._events and bool(self._kept) and self._kept[-1].rstrip().endswith(LAST_EVENTS)
        )

    async def go_on_with(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Continue a stream with the model's answer, after comments up to its first byte.

        Args:
            ask: asks the model server, and relays its answer.

        Raises the errors that `ask` raises.
        """
        failure: Exception | None = None
        self._comments = Comments(self.write)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._comments.run)
            try:
                await ask()
            except EXPECTED as error:
                failure = error
            await self._comments.end()
        if failure is not None:
            raise failure

    async def relay(
        self, response: Response, incoming: Incoming, courtesy: Courtesy = NOBODY_ELSE
    ) -> None:
        """Pass a model server's answer on as it arrives. `go_on_with` continues a begun stream."""
        if self.status:
            await self._go_on(response)
            return
        fields = first_values(response.headers)
        headers = to_client(response.headers, fields, self.call.request_id.encode(), self.cors)
        fixed = b"content-length" in fields or b"content-encoding" in fields
        if response.status == NO_CONTENT:  # it must not have a length (RFC 9110, 8.6)
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        self._is_coded = b"content-encoding" in fields
        self._events = not fixed and is_event_stream(fields)
        if response.status == UPGRADED:
            await self._tunnel(Tunnel(response, incoming, courtesy), headers)
        elif fixed:
            # Before the body begins, a failure can still be answered with a status.
            first = response.take() or await response.read()
            self._begin(response.status, headers)
            await self._relay_body(response, first)
        else:
            self._begin(response.status, headers)
            first = response.take()
            if not first and not response.done:
                await self.exchange.flush()
            await self._relay_body(response, first)

    async def _relay_body(self, response: Response | Tunnel, first: bytes = b"") -> None:
        call, exchange, most = self.call, self.exchange, self.call.room or inf
        kept = self._kept = deque(self._kept, None if call.room else KEPT)
        piece = first or await response.read()
        while piece:
            self.source.heard += 1
            if not call.size:
                self._first = piece
                call.first_byte = time.monotonic()
            call.size += len(piece)
            kept.append(piece)
            if call.size > most:  # the answer is too long to be kept whole
                kept = self._kept = deque(kept, KEPT)
                call.is_whole, most = False, inf
            last = response.done
            await exchange.write(piece, last=last)
            piece = b"" if last else await response.read()
        self.complete = True

    async def _go_on(self, response: Response) -> None:
        """Send the model's answer after the messages about its loading."""
        fields = first_values(response.headers)
        if coded := fields.get(b"content-encoding"):
            # The request did not ask for a coding, and the stream has begun without one.
            text = f"the model server used an unrequested encoding: {coded.decode('latin-1')}"
            await self._comments.end()
            await self.refuse(Problem(502, text))
            return
        if response.status == OK and is_event_stream(fields):
            first = await response.read()
            await self._comments.end()
            await self._relay_body(response, first)
            return
        said = b""
        while len(said) < MOST_SAID and (piece := await response.read()):
            said += piece
        text = f"the model server answered {response.status}: {said.decode('utf-8', 'replace')}"
        status = response.status if response.status >= 400 else 502
        await self._comments.end()
        await self.refuse(Problem(status, text[:MOST_SAID], given=_error_in(said)))

    async def _tunnel(self, tunnel: Tunnel, headers: Sequence[Header]) -> None:
        """Pass bytes both ways, until either side closes."""
        protocol = value_of(tunnel.response.headers, b"upgrade")
        again = [(b"connection", b"upgrade"), (b"upgrade", protocol)]
        self._begin(UPGRADED, [*headers, *again])
        await self.exchange.flush()
        failure: UpstreamError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.to_server)
            nursery.start_soon(_end_when_in_the_way, tunnel, nursery.cancel_scope)
            try:
                await self._relay_body(tunnel)
            except UpstreamError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if tunnel.is_in_the_way:
            await self._make_room(tunnel)

    async def _make_room(self, tunnel: Tunnel) -> None:
        """Tell the client of a silent websocket why it ends."""
        silence = seconds(tunnel.courtesy.silence)
        text = f"the websocket was silent for {silence} while requests for another model waited"
        self.problem = Problem(503, text)
        if tunnel.is_between_pieces:
            with trio.move_on_after(TO_SAY_GOODBYE):  # the client may not read at all
                await self.write(CLOSING)

    async def say(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answer with a whole body that llamadoze made."""
        length = (b"content-length", b"%d" % len(body))
        self._begin(status, [*headers, length, *self._marks()])
        await self.exchange.write(body, last=True)
        self.complete = True

    async def begin_events(self) -> None:
        """Begin a stream of events before the model server has answered."""
        self._events = True
        self._begin(OK, [*EVENTS_OF_OURS, *self._marks()])
        await self.exchange.flush()

    def _marks(self) -> list[Header]:
        return [*ids(self.call.request_id.encode()), *self.cors]

    async def refuse(self, problem: Problem) -> None:
        """Tell the client of a problem in a form that is still possible."""
        self.problem = problem = self.dialect.named(problem)
        if not self.status:
            accept = self.exchange.fields.get(b"accept", b"")
            await ready_to_say(accept)
            await self.say(problem.status, *problem.said_to(accept))
        elif self._events and (not self._kept or self._kept[-1].endswith((b"\n\n", b"\r\n\r\n"))):
            await self.write(self.dialect.failure(problem))
            self.complete = True
        # Otherwise the body stays without its end. Clients see from this that it was cut.

    async def finish(self) -> None:
        """Send the end of the body if it is complete. Otherwise the connection ends without it."""
        if self.complete:
            await self.exchange.write(b"", last=True)

    def tokens(self) -> Tokens:
        """Return the counts of tokens that the answer contains."""
        if not self._kept or self._is_coded:
            return UNKNOWN
        last = [self._kept[place] for place in range(-min(KEPT, len(self._kept)), 0)]
        first = self._first if self._first is not last[0] else b""
        return tokens_of(b"".join((first, *last)))

    @property
    def pieces(self) -> Sequence[bytes]:
        """The whole body if there was room to keep it, otherwise its last pieces."""
        return self._kept

    def _begin(self, status: int, headers: Sequence[Header]) -> None:
        self.status = status
        self.call.response_headers = headers
        self.exchange.begin(status, headers)

    async def write(self, body: bytes) -> None:
        """Send a part of the body."""
        await self.exchange.write(body)
