"""One client's connection: HTTP/1.1 in, one exchange after the other out.

Owns the order of requests on a connection, its timeouts, and its end. It replaces hypercorn's
protocol on h11, and takes less than half of that protocol's time per request. When the client
disconnects, the call that serves it is cancelled.
"""

from __future__ import annotations

from typing import NoReturn

import attrs
import trio

from proxy.http.arrivals import Arrivals
from proxy.http.exchange import LOST, Exchange, Handler
from proxy.http.wire import Wire

KEEP_ALIVE = 75.0  # seconds an idle connection stays open
SLOWEST_HEAD = 30.0  # seconds from a request's first byte to the end of its headers
SLOWEST_PIECE = 60.0  # seconds without a byte of a body while a task waits for it
LINGER = 30.0  # seconds in which the rest of a refused request is read and dropped
BETWEEN_LOOKS = 1.0  # seconds between two checks of a client from which nothing is read


@attrs.define(eq=False)
class Connection:
    """Serve the requests of one connection, one after the other.

    Attributes:
        handle: serves an exchange; the call is cancelled when the client disconnects.
        wire: reads and writes the bytes.
        client: the client's address and port.
        server: llamadoze's address and port.
        keep_alive: seconds that the connection stays open without a request.
        scheme: http, or https if the connection is encrypted.
        is_closing: whether the connection takes no more requests.
    """

    handle: Handler
    wire: Wire
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    keep_alive: float = KEEP_ALIVE
    scheme: str = "http"
    is_closing: bool = attrs.field(default=False, init=False)
    _arrivals: Arrivals = attrs.field(init=False)
    _current: Exchange | None = attrs.field(default=None, init=False)
    _lingering: bool = attrs.field(default=False, init=False)
    _idle_since: float = attrs.field(factory=trio.current_time, init=False)
    _progress_at: float = attrs.field(default=0.0, init=False)
    _arrived: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _calls: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _tasks: trio.Nursery = attrs.field(init=False)
    _reads_beside: bool = attrs.field(default=False, init=False)

    @_arrivals.default
    def _nothing_yet(self) -> Arrivals:
        return Arrivals(self)

    async def run(self) -> None:
        """Serve until the client disconnects, is too slow, or a side wants no more requests."""
        try:
            with self._life:
                async with trio.open_nursery() as self._tasks:
                    self._tasks.start_soon(self._serve)
                    await self._keep_time()
        finally:
            if self._current is not None:
                self._current.end()
                if self._current.looks_whole:
                    self.wire.reset()
            self.wire.close()

    def close(self) -> None:
        """End at once; the call that serves an exchange is cancelled."""
        self._life.cancel()

    def finish(self) -> None:
        """Take no more requests: end now if idle, otherwise after the current response."""
        self.is_closing = True
        if self._lingering or (self._current is None and not self._arrivals.waiting):
            self.close()

    def idle_for(self, now: float) -> float:
        """Return the seconds without use. Waiting for the rest of a request is not use."""
        if self._current is None and not self._arrivals.waiting:
            return now - self._idle_since
        arriving = self._arrivals.arriving
        is_stuck = self._lingering or (arriving is not None and arriving.wanted_since is not None)
        return now - max(self._progress_at, self._idle_since) if is_stuck else 0.0

    # What arrives. While the serving task has nothing to serve, it reads. While it serves, no task
    # reads until bytes come. Then a second task reads until a request is whole. Most requests
    # therefore need one turn of the scheduler less.

    async def _hear(self) -> bool:
        """Read once; return whether the client is still there."""
        try:
            data = await self.wire.receive()
        except LOST:
            return False
        self._arrivals.take(data)
        if self._arrivals.is_partial:
            self._progress_at = trio.current_time()
            self._patience.deadline = self._due()
        return bool(data)

    def _start_reader(self) -> None:
        """Start a second task that reads while a request is served, unless the connection ends."""
        if not self._life.cancel_called:
            self._reads_beside = True
            self._tasks.start_soon(self._read)

    async def _read(self) -> None:
        while await self._hear():
            if self._arrived:
                self._arrived.unpark_all()
            if self._arrivals.is_full and not await self._find_room():
                break
            if self._may_hand_back:
                self._reads_beside = False
                self.wire.call(self._start_reader)
                return
        self.close()

    @property
    def _may_hand_back(self) -> bool:
        """Whether the serving task will read again, and the wire reports what comes until then."""
        arrivals = self._arrivals
        serves = self._current is not None or bool(arrivals.waiting)
        return serves and self.wire.tells and arrivals.arriving is None and arrivals.raw is None

    async def _keep_time(self) -> None:
        """Close the connection when its client has been too slow."""
        while self._due() > trio.current_time():
            with trio.CancelScope(deadline=self._due()) as self._patience:
                await trio.sleep_forever()
        self.close()

    async def _find_room(self) -> bool:
        """Wait for room, and return True. Return False if the client disconnects meanwhile."""
        while self._arrivals.is_full:
            with trio.move_on_after(BETWEEN_LOOKS):
                await self._room.park()
            if self.wire.has_left():
                return False
        return True

    def _due(self) -> float:
        """Return when the client will be too slow, as far as is known now.

        While a request is served, nothing is due. The deadline is then checked again after the idle
        time, since moving it for each request would cost more than it is worth.
        """
        now = trio.current_time()
        if self._arrivals.is_full:
            return now + SLOWEST_PIECE
        if self._arrivals.arriving is not None:
            wanted = self._arrivals.arriving.wanted_since
            return (max(self._progress_at, wanted) if wanted else now) + SLOWEST_PIECE
        if self._current is not None or self._arrivals.waiting:
            return now + self.keep_alive
        if self._arrivals.head_size:
            return self._arrivals.head_began + SLOWEST_HEAD
        return self._idle_since + self.keep_alive

    def taken(self, size: int) -> None:
        """Go on reading, since `size` bytes have been taken."""
        self._arrivals.buffered -= size
        if self._reads_beside:
            self._room.unpark_all()

    async def more(self) -> None:
        """Wait until something has arrived."""
        await self._arrived.park()

    # What is answered.

    async def lost(self) -> NoReturn:
        """End the connection and this call: the client has disconnected."""
        self.close()
        await trio.sleep_forever()

    def break_off(self, exchange: Exchange) -> None:
        """Cancel the call that serves an exchange, if the exchange is the current one."""
        if exchange is self._current:
            self._calls.cancel()

    async def _serve(self) -> None:
        try:
            # One scope serves all calls: a scope for each would take 5 % of a request's time.
            with self._calls:
                await self._serve_in_order()
            if (exchange := self._current) is not None:
                if self._calls.cancelled_caught:
                    await exchange.say_why()
                await self._end(exchange)
        finally:
            self.close()
            self.wire.call(None)

    async def _serve_in_order(self) -> None:
        """Serve until an exchange after which no other may follow."""
        while True:
            while not self._arrivals.waiting:
                if self._reads_beside:
                    await self._arrived.park()
                elif not await self._hear():
                    return
            self._current = exchange = self._arrivals.waiting.popleft()
            if self._reads_beside:
                self._room.unpark_all()
            elif self.wire.tells:
                self.wire.call(self._start_reader)
            else:
                self._start_reader()
            await exchange.run(self.handle)
            if not exchange.may_be_followed or self.is_closing or self._calls.cancel_called:
                return
            self._current = None
            self._idle_since = trio.current_time()

    async def _end(self, exchange: Exchange) -> None:
        """Close. A client that has not sent all of its request may first read the answer."""
        if exchange.answered and not exchange.complete and not self.is_closing:
            self._lingering = True
            self.wire.end_sending()
            with trio.move_on_after(LINGER):
                while not exchange.complete:
                    await self._arrived.park()
