"""One client's connection: HTTP/1.1 in, calls of the ASGI application out.

Owns framing, the order of requests on a connection, and its end. It stands where hypercorn has its
protocol on h11, for less than half of the time of each request. When the client leaves, the
application's call is cancelled.
"""

from __future__ import annotations

from collections import deque

import attrs
import httptools
import structlog
import trio

from proxy.http.exchange import Application, Exchange
from proxy.http.heads import LONGEST_HEAD, MOST_HEADERS, TOO_LONG, Reject, too_large
from proxy.http.wire import Wire

KEEP_ALIVE = 75.0  # seconds an idle connection stays open
SLOWEST_HEAD = 30.0  # seconds from a request's first byte to the end of its headers
SLOWEST_PIECE = 60.0  # seconds without a byte of a body that is waited for
LINGER = 30.0  # seconds in which the rest of a refused request is read and dropped
MOST_BUFFERED = 256 * 1024  # bytes that wait for the application
MOST_WAITING = 4  # requests that wait for those before them
BETWEEN_LOOKS = 1.0  # seconds between two looks for a client of which nothing is read

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define(eq=False)
class Connection:
    """Serve the requests of one connection, one after the other.

    Attributes:
        app: the ASGI application; its call is cancelled when the client leaves.
        wire: the connection.
        client: the other side's address and port.
        server: ours.
        keep_alive: seconds it stays open without a request.
        scheme: http, or https where it is encrypted.
    """

    app: Application
    wire: Wire
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    keep_alive: float = KEEP_ALIVE
    scheme: str = "http"
    _closing: bool = attrs.field(default=False, init=False)
    _waiting: deque[Exchange] = attrs.field(factory=deque, init=False)
    _current: Exchange | None = attrs.field(default=None, init=False)
    _arriving: Exchange | None = attrs.field(default=None, init=False)
    _raw: Exchange | None = attrs.field(default=None, init=False)
    _deaf: bool = attrs.field(default=False, init=False)
    _lingering: bool = attrs.field(default=False, init=False)
    _idle_since: float = attrs.field(factory=trio.current_time, init=False)
    _head_began: float = attrs.field(default=0.0, init=False)
    _progress_at: float = attrs.field(default=0.0, init=False)
    _head_size: int = attrs.field(default=0, init=False)
    _buffered: int = attrs.field(default=0, init=False)
    _arrived: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _calls: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _parser: httptools.HttpRequestParser = attrs.field(init=False)
    _url: bytes = attrs.field(default=b"", init=False)
    _headers: list[tuple[bytes, bytes]] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    async def run(self) -> None:
        """Serve until the client leaves, is too slow, or either side wants no more requests."""
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._serve)
                    await self._read()
                    self.close()
        finally:
            if self._current is not None and self._current.looks_whole:
                self.wire.reset()
            self.wire.close()

    def close(self) -> None:
        """End at once; a call of the application is cancelled."""
        self._life.cancel()

    def finish(self) -> None:
        """Take no more requests: end now if idle, else after the present response."""
        self._closing = True
        if self._lingering or (self._current is None and not self._waiting):
            self.close()

    def idle_for(self, now: float) -> float:
        """Return the seconds since it was of use; a request that does not arrive is of none."""
        if self._current is None and not self._waiting:
            return now - self._idle_since
        arriving = self._arriving
        is_stuck = self._lingering or (arriving is not None and arriving.wanted_since is not None)
        return now - max(self._progress_at, self._idle_since) if is_stuck else 0.0

    @property
    def is_closing(self) -> bool:
        """Whether no more requests are taken."""
        return self._closing

    # What arrives.

    async def _read(self) -> None:
        while not await self._read_until(self._due()):
            if self._due() <= trio.current_time():
                return

    async def _read_until(self, deadline: float) -> bool:
        """Read; return whether it is over, or at least the time."""
        with trio.CancelScope(deadline=deadline) as self._patience:
            while data := await self._receive():
                self._take(data)
                if self._arrived:
                    self._arrived.unpark_all()
                while self._is_full:
                    if not await self._find_room():
                        return True
                if self._arriving is not None or self._head_size:
                    self._progress_at = trio.current_time()
                    self._patience.deadline = self._due()
            return True
        return False

    @property
    def _is_full(self) -> bool:
        return self._buffered > MOST_BUFFERED or len(self._waiting) > MOST_WAITING

    async def _find_room(self) -> bool:
        """Wait until there is room, and look now and then for the client; return if it is there."""
        with trio.move_on_after(BETWEEN_LOOKS):
            await self._room.park()
        return not self.wire.has_left()

    async def _receive(self) -> bytes:
        try:
            return await self.wire.receive()
        except (OSError, trio.ClosedResourceError):
            return b""

    def _due(self) -> float:
        """Return when the client will have been too slow, as far as is known now.

        While a request is served nothing is due; that is looked at again after the idle time, since
        to move the deadline for each request would cost more than it is worth.
        """
        now = trio.current_time()
        if self._is_full:
            return now + SLOWEST_PIECE
        if self._arriving is not None:
            wanted = self._arriving.wanted_since
            return (max(self._progress_at, wanted) if wanted else now) + SLOWEST_PIECE
        if self._current is not None or self._waiting:
            return now + self.keep_alive
        if self._head_size:
            return self._head_began + SLOWEST_HEAD
        return self._idle_since + self.keep_alive

    def _take(self, data: bytes) -> None:
        while data and not self._deaf:
            if self._raw is not None:
                self._add(self._raw, data)
                return
            is_first = not self._head_size
            self._head_size += len(data)
            data = self._parse(data)
            if is_first and self._head_size:  # it is not whole
                self._head_began = trio.current_time()
        if self._head_size > LONGEST_HEAD and not self._raw:  # or a body's trailer without end
            self._reject(TOO_LONG)

    def _parse(self, data: bytes) -> bytes:
        """Let the parser have bytes; return those that are to be looked at again."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(Reject(400, f"the request is not HTTP/1.1: {error}"))
        return b""

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Let a websocket's bytes through as they are; ignore any other wish (RFC 9110, 7.8)."""
        asking = self._waiting[-1]
        self._head_size = 0
        if asking.wants_websocket:
            self._raw = asking
            asking.reopen()
            return rest
        self._waiting.pop()
        if asking.method == "CONNECT":
            self._reject(Reject(405, "this is no proxy for other servers"))
            return b""
        self._parser = httptools.HttpRequestParser(self)
        return asking.head_without_upgrade() + rest

    def _reject(self, reason: Reject) -> None:
        """Answer after those that came before; listen to nothing more."""
        if self._arriving is not None:
            self._arriving.fail(reason)
        else:
            self._waiting.append(Exchange.rejected(self, reason))
        self._arriving, self._deaf = None, True

    def _add(self, exchange: Exchange, data: bytes) -> None:
        if data and not exchange.ended:
            exchange.add(data)
            self._buffered += len(data)

    def taken(self, size: int) -> None:
        """Go on reading: the application has taken so many bytes."""
        self._buffered -= size
        if self._room:
            self._room.unpark_all()

    async def more(self) -> None:
        """Wait until something has arrived."""
        await self._arrived.park()

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are not listened to."""
        if self._arriving is None and len(self._headers) <= MOST_HEADERS:
            # Blanks at a value's end are no part of it (RFC 9110, 5.5).
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        reason = too_large(self._head_size, self._url, self._headers)
        self._head_size = 0
        parser = self._parser
        method, version = parser.get_method().decode(), parser.get_http_version()
        keep_alive = parser.should_keep_alive()
        exchange = Exchange(self, method, self._url, self._headers, version, keep_alive)
        self._arriving = exchange
        self._waiting.append(exchange)
        if reason:
            exchange.fail(reason)

    def on_body(self, data: bytes) -> None:
        """A part of the body, free of its framing."""
        self._head_size = 0
        if self._arriving is not None:
            self._add(self._arriving, data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._head_size = 0
        if self._arriving is not None:
            self._arriving.complete = True
            self._arriving = None

    # What is answered.

    async def write(self, data: bytes) -> None:
        """Send all of it; if the client has left, end, and with it this call."""
        try:
            await self.wire.send(data)
        except (OSError, trio.ClosedResourceError):
            self.close()
            await trio.sleep_forever()

    def break_off(self, exchange: Exchange) -> None:
        """Cancel the application's call for an exchange, if that is the present one."""
        if exchange is self._current:
            self._calls.cancel()

    async def _serve(self) -> None:
        # One scope for all calls, and not one for each: that is a twentieth of a request's time.
        with self._calls:
            await self._serve_in_order()
        if (exchange := self._current) is not None:
            if self._calls.cancelled_caught:
                await exchange.answer_for_app()
            await self._end(exchange)
        self.close()

    async def _serve_in_order(self) -> None:
        """Serve until an exchange that none may follow."""
        while True:
            while not self._waiting:
                await self._arrived.park()
            self._current = exchange = self._waiting.popleft()
            if self._room:
                self._room.unpark_all()
            await exchange.run(self.app)
            if not exchange.may_be_followed or self._closing:
                return
            self._current = None
            self._idle_since = trio.current_time()

    async def _end(self, exchange: Exchange) -> None:
        """Close; let a client first read our answer that has not sent all of its request yet."""
        if exchange.answered and not exchange.complete and not self._closing:
            self._lingering = True
            self.wire.end_sending()
            with trio.move_on_after(LINGER):
                while not exchange.complete:
                    await self._arrived.park()
