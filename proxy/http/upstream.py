"""The HTTP/1.1 client towards one model server or peer: kept connections, raw bytes.

Owns connections and one exchange at a time on each. What is sent and who waits for it is decided
elsewhere; leaving an exchange before its end closes its connection, which is how a server learns
that nobody listens any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import inf
from types import TracebackType
from typing import Protocol

import attrs
import trio

from configschema import Timeouts
from proxy.http.bodies import Held
from proxy.http.headers import Header
from proxy.http.origin import NO_TIMEOUTS, Origin
from proxy.http.parsing import ResponseParser, Unsendable, UpstreamError
from proxy.http.wire import READ_SIZE, Wire

MOST_KEPT = 64  # idle connections per server
CLOSING_RACE = 0.05  # seconds in which a server's close may have crossed our request


class Upload(Protocol):
    """A body that is sent on as it arrives."""

    @property
    def length(self) -> int | None:
        """Its size in bytes, if it is known."""

    async def read(self) -> bytes:
        """Return its next part; nothing at its end.

        Raises:
            Unsendable: there is more of it than is accepted.
        """


@attrs.define(eq=False)
class Response:
    """An answer whose head has arrived; the body is read as it comes.

    Leaving its block gives the connection back, or closes it if not all was read.
    """

    status: int
    headers: Sequence[Header]
    _wire: Wire
    _parser: ResponseParser
    _first: bytes
    _upstream: Upstream

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        good = kind is None and self._parser.done and self._parser.keep_alive
        if not (good and self._upstream.keep(self._wire)):
            self._wire.close()

    async def read(self) -> bytes:
        """Return the next piece of the body, decoded from its framing; nothing at its end.

        One piece for each read of the connection: what arrived together goes on together.

        Raises:
            UpstreamError: the connection broke before the end.
        """
        body, self._first = self._first, b""
        while not body and not self._parser.done:
            if piece := await _receive(self._wire):
                body = self._parser.feed(piece)
            else:
                self._parser.ended()
        return body

    async def send(self, data: bytes) -> None:
        """Send raw bytes, after the server has agreed to another protocol (status 101)."""
        with contextlib.suppress(OSError):
            await self._wire.send(data)


@attrs.frozen(kw_only=True)
class Request:
    """What is sent to a server.

    Attributes:
        method: as it goes on the wire, as all else.
        target: path and query, below the origin's base path.
        headers: without Content-Length and Transfer-Encoding, which are made here.
        body: all of it, or what it is read from.
        may_upgrade: whether the server may answer with another protocol.
    """

    method: bytes
    target: bytes
    headers: Sequence[Header]
    body: Held | Upload = b""
    may_upgrade: bool = False

    def head(self, base_path: str) -> bytes:
        """Return its first line and headers."""
        target = base_path.encode() + self.target if base_path else self.target
        lines = [b"%b %b HTTP/1.1" % (self.method, target)]
        lines += [b"%b: %b" % header for header in self.headers]
        length = len(self.body) if isinstance(self.body, Held) else self.body.length
        if length is None:
            lines.append(b"transfer-encoding: chunked")
        elif length or self.method not in (b"GET", b"HEAD"):
            lines.append(b"content-length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"


@attrs.define(eq=False)
class Upstream:
    """Connections to one server.

    Attributes:
        origin: where it listens.
        timeouts: how long what may take.
        most_kept: idle connections that are kept for the next exchange.
    """

    origin: Origin
    timeouts: Timeouts = NO_TIMEOUTS
    most_kept: int = MOST_KEPT
    _kept: list[tuple[Wire, float]] = attrs.field(factory=list, init=False)

    async def exchange(self, request: Request) -> Response:
        """Send a request and read the head of its answer; use it as a block.

        Raises:
            UpstreamError: there is no answer.
        """
        if isinstance(request.body, Held) and (kept := self._pop_kept()):
            asked = trio.current_time()
            with contextlib.suppress(_NotAByte):
                return await self._ask(kept, request)
            if trio.current_time() - asked > CLOSING_RACE:
                raise UpstreamError("the model server closed the connection without an answer")
        wire = await self.origin.connect(self.timeouts)
        try:
            return await self._ask(wire, request)
        except _NotAByte as error:
            reason = "the model server closed the connection without an answer"
            raise UpstreamError(reason) from error

    def close(self) -> None:
        """Close what is kept, and keep nothing more."""
        self.most_kept = 0
        while self._kept:
            self._kept.pop()[0].close()

    def keep(self, wire: Wire) -> bool:
        """Keep a connection for the next exchange, if there is room."""
        if len(self._kept) < self.most_kept:
            self._kept.append((wire, trio.current_time()))
            return True
        return False

    def _pop_kept(self) -> Wire | None:
        """Return a kept connection on which nothing has happened since."""
        oldest = trio.current_time() - (self.timeouts.idle_conn or inf)
        while self._kept:
            wire, since = self._kept.pop()
            if since >= oldest and wire.is_quiet():  # else it was closed, or said what nobody asked
                return wire
            wire.close()
        return None

    async def _ask(self, wire: Wire, request: Request) -> Response:
        """Send a request and read the head of the answer; close the connection if that fails."""
        parser = ResponseParser(request.method, request.may_upgrade)
        head, body = request.head(self.origin.base_path), request.body
        try:
            if isinstance(body, Held) and len(body) <= READ_SIZE:
                await _send(wire, head + body)
                first = await self._head_of_answer(wire, parser)
            else:
                first = await self._ask_at_length(wire, parser, head, body)
        except BaseException:  # whatever it is, the connection is of no more use
            wire.close()
            raise
        return Response(parser.status, parser.headers, wire, parser, first, self)

    async def _ask_at_length(
        self, wire: Wire, parser: ResponseParser, head: bytes, body: Held | Upload
    ) -> bytes:
        """Send and read at once: a server may refuse a long request without having read it."""
        outcome: bytes | Exception = self._late()
        waiting = trio.CancelScope()
        sent = False

        async def send() -> None:
            nonlocal sent, outcome
            try:
                await _send(wire, head)
                await (_send(wire, body) if isinstance(body, Held) else _pass_on(wire, body))
            except Unsendable as error:
                outcome = error
                waiting.cancel()
                return
            sent = True
            waiting.deadline = trio.current_time() + (self.timeouts.response_header or inf)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                with waiting:
                    outcome = await _read_head(wire, parser)
            except (UpstreamError, _NotAByte) as error:
                outcome = error
            nursery.cancel_scope.cancel()
        if not sent:
            parser.close_after()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _head_of_answer(self, wire: Wire, parser: ResponseParser) -> bytes:
        limit = self.timeouts.response_header
        if not limit:
            return await _read_head(wire, parser)
        with trio.move_on_after(limit):
            return await _read_head(wire, parser)
        raise self._late()

    def _late(self) -> UpstreamError:
        limit = self.timeouts.response_header
        return UpstreamError(f"no answer within {limit}s (timeouts.responseHeader)")


class _NotAByte(Exception):
    """The connection ended before an answer began."""


async def _send(wire: Wire, data: Held) -> None:
    # A server may answer and close without having read all of it; then its answer decides.
    with contextlib.suppress(OSError):
        await wire.send(data)


async def _pass_on(wire: Wire, upload: Upload) -> None:
    chunked = upload.length is None
    while piece := await upload.read():
        await _send(wire, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        await _send(wire, b"0\r\n\r\n")


async def _read_head(wire: Wire, parser: ResponseParser) -> bytes:
    """Return what has arrived of the body with the head."""
    while True:
        try:
            piece = await _receive(wire)
        except UpstreamError as error:
            raise (error if parser.size else _NotAByte) from error
        if not piece:
            if not parser.size:
                raise _NotAByte
            parser.ended()
        body = parser.feed(piece) if piece else b""
        if parser.head_done:
            return body


async def _receive(wire: Wire) -> bytes:
    try:
        return await wire.receive()
    except OSError as error:
        raise UpstreamError("the connection to the model server broke") from error
