"""The client's side of one exchange: its request's body in, a response out, and its leaving.

Owns the ASGI messages of a forwarded request. Views of the application have Quart for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from proxy.errors import BadRequest, Problem
from proxy.headers import Header, is_event_stream, to_client
from proxy.upstream import Response

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

LARGEST_BODY = 64 * 1024 * 1024  # bytes held in memory for one request
MOST_DRAINED = 256 * 1024 * 1024  # bytes read and dropped, so that a refusal reaches the client


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(receive: Receive, limit: int = LARGEST_BODY) -> bytes:
    """Read a request's body.

    Raises:
        ClientGone: the client left before its end.
        BadRequest: it is longer than `limit` bytes.
    """
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= MOST_DRAINED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        size += len(message["body"])
        more = message.get("more_body", False)
        if size <= limit:
            parts.append(message["body"])
        else:
            parts.clear()
    if size > limit:
        text = f"the body has more than {limit} bytes, the most that is accepted"
        raise BadRequest(text, status=413, code="body_too_large")
    return b"".join(parts)


async def while_client_waits(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work; cancel it as soon as the client leaves."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await work()
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Answer:
    """The response on its way to a client.

    Attributes:
        send: the connection's ASGI send.
        status: of the response; 0 before it has begun.
        complete: whether all of the body but its end was sent.
        problem: what the client was, or would have to be, told of.
    """

    send: Send
    status: int = 0
    complete: bool = False
    problem: Problem | None = None
    _events: bool = False
    _between_events: bool = True

    async def relay(self, response: Response) -> None:
        """Pass a model server's answer on, as it arrives."""
        headers = to_client(response.headers)
        fixed = {b"content-length", b"content-encoding"} & {name for name, _ in headers}
        self._events = is_event_stream(headers) and not fixed
        await self._begin(response.status, headers)
        while piece := await response.read():
            self._between_events = piece.endswith((b"\n\n", b"\r\n\r\n"))
            await self._write(piece)
        self.complete = True

    async def say(self, status: int, body: bytes, headers: list[Header] | None = None) -> None:
        """Answer with a JSON text."""
        framing = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await self._begin(status, framing + (headers or []))
        await self._write(body)
        self.complete = True

    async def refuse(self, problem: Problem) -> None:
        """Tell the client of a problem, in whatever form is still possible."""
        self.problem = problem
        if not self.status:
            extra = [(k.lower().encode(), v.encode()) for k, v in problem.headers.items()]
            await self.say(problem.status, problem.body(), extra)
        elif self._events and self._between_events:
            await self._write(problem.event())
            self.complete = True
        # Otherwise the body stays without its end, which is how a client sees that it was cut.

    async def finish(self) -> None:
        """Send the end of the body.

        Call it where nothing cancels: hypercorn reports the end of a connection's use as a
        disconnect, before it has put the connection back into order.
        """
        if self.complete:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, status: int, headers: list[Header]) -> None:
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
