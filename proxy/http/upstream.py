"""The HTTP/1.1 client towards one model server or peer: kept connections, raw bytes.

Owns connections and one exchange at a time on each. What is sent and who waits for it is decided
elsewhere; leaving an exchange before its end closes its connection, which is how a server learns
that nobody listens any more.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from math import inf
from types import TracebackType
from typing import Protocol

import attrs
import trio

from configschema import Timeouts
from proxy.http.bodies import Held
from proxy.http.headers import Header
from proxy.http.origin import (
    NO_TIMEOUTS,
    UNHEARD,
    Origin,
    late,
    longest_silence,
    longest_wait,
    stalled,
    too_late,
    until_silent,
)
from proxy.http.parsing import Broken, NotAByte, ResponseParser, Unsendable, UpstreamError
from proxy.http.wire import READ_SIZE, Wire

MOST_KEPT = 64  # idle connections per server
STRETCH = 1 << 20  # bytes that are sent at once of a body in memory
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
    _busy: int

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
            if piece := await self._upstream.receive(self._wire, self._busy):
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
            try:
                return await self._ask(kept, request)
            except NotAByte:
                if trio.current_time() - asked > CLOSING_RACE:
                    raise
        return await self._ask(await self.origin.connect(self.timeouts), request)

    def close(self) -> None:
        """Close what is kept, and keep nothing more."""
        self.most_kept = 0
        self._forget_kept()

    def _forget_kept(self) -> None:
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
                with contextlib.suppress(OSError):  # its answer decides
                    await wire.send(head + body)
                first = await self._head_of_answer(wire, parser)
            else:
                first = await self._ask_at_length(wire, parser, head, body)
        except BaseException:  # whatever it is, the connection is of no more use
            wire.close()
            raise
        busy = 0 if parser.upgraded else self.timeouts.busy  # a websocket may have nothing to say
        return Response(parser.status, parser.headers, wire, parser, first, self, busy)

    async def _ask_at_length(
        self, wire: Wire, parser: ResponseParser, head: bytes, body: Held | Upload
    ) -> bytes:
        """Send and read at once: a server may refuse a long request without having read it."""
        answer: bytes | None = None
        failure: Exception | None = None
        waiting = trio.CancelScope()
        sent = False

        def give_up(error: Exception) -> None:
            nonlocal failure
            failure = failure or error
            waiting.cancel()

        async def send() -> None:
            nonlocal sent
            try:
                await self._send_at_length(wire, head, body)
            except (Unsendable, UpstreamError) as error:
                give_up(error)
            else:
                sent = True
                waiting.deadline = trio.current_time() + longest_wait(self.timeouts)

        async def watch(limit: int) -> None:
            await until_silent(wire.connection, limit)
            give_up(self._lost(TimeoutError(errno.ETIMEDOUT, "")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            if limit := longest_silence(wire.connection):
                nursery.start_soon(watch, limit)
            try:
                with waiting:
                    answer = await self._read_head(wire, parser)
            except UpstreamError as error:
                give_up(error)
            nursery.cancel_scope.cancel()
        if not sent:
            parser.close_after()
        if answer is None:
            raise failure or late(self.timeouts)
        return answer

    async def _send_at_length(self, wire: Wire, head: bytes, body: Held | Upload) -> None:
        await self._send(wire, head)
        if isinstance(body, Held):
            is_short = len(body) <= STRETCH  # then nothing of it is copied
            for start in range(0, len(body), STRETCH):
                await self._send(wire, body if is_short else body[start : start + STRETCH])
            return
        chunked = body.length is None
        while piece := await body.read():
            await self._send(wire, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await self._send(wire, b"0\r\n\r\n")

    async def _send(self, wire: Wire, data: Held) -> None:
        """Send a part of what is long; whoever works takes it in time."""
        busy = self.timeouts.busy
        try:
            with trio.move_on_after(busy) if busy else contextlib.nullcontext():
                return await wire.send(data)
        except OSError as error:
            # A server may close without having read all of it; then its answer decides.
            if error.errno in UNHEARD:
                raise self._lost(error) from error
            return None
        raise stalled(busy)

    async def _head_of_answer(self, wire: Wire, parser: ResponseParser) -> bytes:
        limit, busy = self.timeouts.response_header, self.timeouts.busy
        if not limit:
            return await self._read_head(wire, parser, busy)
        with trio.move_on_after(limit):
            return await self._read_head(wire, parser, busy)
        raise too_late(limit)

    async def _read_head(self, wire: Wire, parser: ResponseParser, busy: int = 0) -> bytes:
        """Return what has arrived of the body with the head."""
        while True:
            try:
                piece = await self.receive(wire, busy)
            except Broken as error:
                raise (error if parser.size else NotAByte(str(error))) from error
            if not piece:
                if not parser.size:
                    raise NotAByte
                parser.ended()
            body = parser.feed(piece) if piece else b""
            if parser.head_done:
                return body

    async def receive(self, wire: Wire, busy: int) -> bytes:
        """Return what has arrived, once something has; nothing at the end.

        Raises:
            UpstreamError: the connection broke, or nothing arrived for `busy` seconds.
        """
        try:
            if not busy:
                return await wire.receive()
            with trio.move_on_after(busy):
                return await wire.receive()
        except OSError as error:
            raise self._lost(error) from error
        raise stalled(busy)

    def _lost(self, error: OSError) -> Broken:
        if error.errno in UNHEARD:  # what else is kept to this machine has broken, too
            self._forget_kept()
        return self.origin.broken(error, self.timeouts)
