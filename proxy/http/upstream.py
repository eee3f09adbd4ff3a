"""The HTTP/1.1 client for one model server or peer: kept connections, raw bytes.

Owns connections, and one exchange at a time on each. Other modules decide what is sent and which
task waits for it. Leaving an exchange before its end closes its connection. The server learns from
this that its answer is no longer wanted.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import time
from collections import deque
from collections.abc import Sequence
from math import inf
from types import TracebackType

import attrs
import trio

from configschema import Timeouts
from proxy.http.bodies import Held, Upload
from proxy.http.headers import Header
from proxy.http.heads import Request
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

MOST_KEPT = 512  # idle connections per server, enough for as many streams to begin again
A_SHARE = 8  # an eighth of all descriptors is for the idle connections to one server
FAILED = (OSError, trio.TooSlowError)
STRETCH = 1 << 20  # bytes of a body in memory that are sent at once
CLOSING_RACE = 0.05  # seconds in which a server's close may have crossed our request


def most_kept() -> int:
    """Return how many idle connections to a server the system's limit allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_KEPT if soft == resource.RLIM_INFINITY else min(MOST_KEPT, soft // A_SHARE)


@attrs.define(eq=False)
class Response:
    """An answer whose head has arrived. The body is read as it comes.

    Leaving the ``with`` block keeps the connection, or closes it if not all was read.
    """

    status: int
    headers: Sequence[Header]
    _wire: Wire
    _parser: ResponseParser
    _first: bytes
    _upstream: Upstream
    _busy: float

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        good = kind is None and self._parser.done and self._parser.keep_alive
        if not (good and self._upstream.keep(self._wire)):
            self._wire.close()

    @property
    def done(self) -> bool:
        """Whether all of the answer was read, so that there is no next piece."""
        return self._parser.done and not self._first

    def take(self) -> bytes:
        """Return the part of the body that has arrived with the head and was not read yet."""
        first, self._first = self._first, b""
        return first

    async def read(self) -> bytes:
        """Return the next piece of the body without its framing; nothing at the end.

        Each read of the connection is one piece, so bytes that arrive together stay together.

        Raises:
            UpstreamError: the connection broke before the end.
        """
        body = self.take()
        parser = self._parser
        try:
            while not body and not parser.done:
                if piece := await self._wire.receive(self._busy):
                    body = parser.feed(piece)
                else:
                    parser.ended()
        except FAILED as error:
            raise self._upstream.failed(error) from error
        return body

    async def send(self, data: bytes) -> None:
        """Send raw bytes, after the server has agreed to another protocol (status 101)."""
        with contextlib.suppress(OSError):
            await self._wire.send(data)


@attrs.define(eq=False)
class Upstream:
    """Connections to one server.

    Attributes:
        origin: where the server listens.
        timeouts: the limits of connecting, answering and being silent.
        most_kept: how many idle connections are kept for later exchanges.
    """

    origin: Origin
    timeouts: Timeouts = NO_TIMEOUTS
    most_kept: int = attrs.field(factory=lambda: most_kept())
    _kept: deque[tuple[Wire, float]] = attrs.field(factory=deque, init=False)

    async def exchange(self, request: Request) -> Response:
        """Send a request and read the head of its answer. Use the response in a ``with`` block.

        Raises:
            UpstreamError: there is no answer.
        """
        now = time.monotonic()
        if isinstance(request.body, Held) and (kept := self._pop_kept(now)):
            try:
                return await self._ask(kept, request)
            except NotAByte:
                if time.monotonic() - now > CLOSING_RACE:
                    raise
        return await self._ask(await self.origin.connect(self.timeouts), request)

    def close(self) -> None:
        """Close the kept connections, and keep no more."""
        self.most_kept = 0
        self._forget_kept()

    def _forget_kept(self) -> None:
        while self._kept:
            self._kept.pop()[0].close()

    def keep(self, wire: Wire) -> bool:
        """Keep a connection for the next exchange, if there is room."""
        if len(self._kept) >= self.most_kept:
            return False
        now = time.monotonic()
        self._kept.append((wire, now))
        if self._kept[0][1] < now - (self.timeouts.idle_conn or inf):  # fewer are needed now
            self._kept.popleft()[0].close()
        return True

    def _pop_kept(self, now: float) -> Wire | None:
        """Return a kept connection on which nothing has happened since."""
        oldest = now - (self.timeouts.idle_conn or inf)
        while self._kept:
            wire, since = self._kept.pop()
            if since >= oldest and wire.is_quiet():  # otherwise closed, or bytes came unasked
                return wire
            wire.close()
        return None

    async def _ask(self, wire: Wire, request: Request) -> Response:
        """Send a request and read the head of the answer. If that fails, close the connection."""
        parser = ResponseParser(request.method, request.may_upgrade)
        head, body = request.head(self.origin.base_path), request.body
        try:
            if isinstance(body, Held) and len(body) <= READ_SIZE:
                try:
                    await wire.send(head + body)
                except OSError:  # an answer may still have come; no request may follow it
                    parser.close_after()
                if self.timeouts.response_header:
                    first = await self._head_in_time(wire, parser)
                else:
                    first = await self._read_head(wire, parser, self.timeouts.busy or inf)
            else:
                first = await self._ask_at_length(wire, parser, head, body)
        except BaseException:  # after any error, the connection cannot be used again
            wire.close()
            raise
        # A websocket may be silent for any time.
        busy = inf if parser.upgraded else self.timeouts.busy or inf
        return Response(parser.status, parser.headers, wire, parser, first, self, busy)

    async def _ask_at_length(
        self, wire: Wire, parser: ResponseParser, head: bytes, body: Held | Upload
    ) -> bytes:
        """Send and read at once: a server may refuse a long request before it has read it all."""
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
            is_short = len(body) <= STRETCH  # a short body is sent without a copy
            for start in range(0, len(body), STRETCH):
                await self._send(wire, body if is_short else body[start : start + STRETCH])
            return
        chunked = body.length is None
        while piece := await body.read():
            await self._send(wire, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await self._send(wire, b"0\r\n\r\n")

    async def _send(self, wire: Wire, data: Held) -> None:
        """Send a part of a long request. A server that works takes it in time."""
        busy = self.timeouts.busy
        try:
            with trio.move_on_after(busy) if busy else contextlib.nullcontext():
                return await wire.send(data)
        except OSError as error:
            # A server may close before it has read everything. Its answer may still have come.
            if error.errno in UNHEARD:
                raise self._lost(error) from error
            return None
        raise stalled(busy)

    async def _head_in_time(self, wire: Wire, parser: ResponseParser) -> bytes:
        limit = self.timeouts.response_header
        with trio.move_on_after(limit):
            return await self._read_head(wire, parser, self.timeouts.busy or inf)
        raise too_late(limit)

    async def _read_head(self, wire: Wire, parser: ResponseParser, busy: float = inf) -> bytes:
        """Return the part of the body that has arrived with the head."""
        while True:
            try:
                piece = await wire.receive(busy)
            except FAILED as error:
                failure = self.failed(error)
                is_none = isinstance(failure, Broken) and not parser.size
                raise (NotAByte(str(failure)) if is_none else failure) from error
            if not piece:
                if not parser.size:
                    raise NotAByte
                parser.ended()
            body = parser.feed(piece) if piece else b""
            if parser.head_done:
                return body

    def failed(self, error: OSError | trio.TooSlowError) -> UpstreamError:
        """Return why nothing arrived: the connection broke, or the server took too long."""
        return self._lost(error) if isinstance(error, OSError) else stalled(self.timeouts.busy)

    def _lost(self, error: OSError) -> Broken:
        if error.errno in UNHEARD:  # the other connections to this machine have broken, too
            self._forget_kept()
        return self.origin.broken(error, self.timeouts)
