"""When a model server rests or ends: by the latest wish, or when its idle times are over.

Owns the wish, the order to end that is never taken back, and the waits: for the last request to
end, for ``ttl`` and ``sleepTtl``, for a drain that takes too long. The model server takes the steps
that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs
import trio

from configschema import Limits
from supervisor.model.usage import Stir, Usage
from supervisor.states.durations import seconds
from supervisor.states.racing import race
from supervisor.states.table import Wish

RESTING = frozenset({Wish.SLEEP, Wish.DRAIN})


@attrs.define(eq=False)
class Wanted:
    """What others want of a model server.

    Attributes:
        limits: the idle times and the longest drain, in seconds.
        tell: logs what follows from an idle time that is over.
        is_leased: whether somebody has a lease on the model: then its idle times do not run.
        wish: the latest wish.
        found_asleep: whether something else has put the model to sleep; its life resets this.
        told_to_end: set once the present process must end.
        stir: called at every change.
        usage: the leases, and since when there are none.
    """

    limits: Limits
    tell: Callable[[Wish, float], None]
    is_leased: Callable[[], bool] = lambda: False
    wish: Wish = attrs.field(default=Wish.STOP, init=False)
    found_asleep: bool = attrs.field(default=False, init=False)
    told_to_end: trio.Event = attrs.field(factory=trio.Event, init=False)
    stir: Stir = attrs.field(factory=Stir, init=False)
    usage: Usage = attrs.field(init=False)

    @usage.default
    def _new_usage(self) -> Usage:
        return Usage(self.stir)

    def ask(self, wish: Wish) -> None:
        """Note a wish. STOP, and DRAIN without a lease, end the present process for certain."""
        self.wish = wish
        if wish is Wish.STOP or (wish is Wish.DRAIN and not self.usage.in_flight):
            self.told_to_end.set()
        self.stir()

    def begin_life(self) -> None:
        """Forget what the last process was told."""
        self.told_to_end = trio.Event()
        self.found_asleep = False

    def find_asleep(self) -> None:
        """Note that something else has put the model to sleep."""
        self.found_asleep = True
        self.stir()

    def change(self, limits: Limits) -> None:
        """Apply other limits from now on."""
        self.limits = limits
        self.stir()

    async def until_rest_is_due(self) -> str | None:
        """Return in the very step in which the model should rest and has no lease.

        Returns why it must be stopped instead, or None.
        """
        while not self._rest_is_due():
            limits = self.limits
            late: str | None = await race(
                partial(self.stir.when, self._rest_is_due),
                partial(self._changed_from, limits),
                partial(self._idle_for, limits.sleep_ttl),
                partial(self._idle_for, limits.stop_ttl),
                self._drain_too_long,
            )
            if late and self._is_draining():
                return late
            self._rest_if_idle()
        return None

    async def until_serve(self) -> None:
        """Return in the very step in which the sleeping model should serve."""
        while not self._is_wanted():
            limits = self.limits
            await race(
                partial(self.stir.when, self._is_wanted),
                partial(self._changed_from, limits),
                partial(self._idle_for, limits.stop_ttl),
            )
            self._rest_if_idle()

    async def until_told_to_end(self) -> str | None:
        """Return None when the present process must end."""
        await self.told_to_end.wait()
        return None

    async def until_given_up(self) -> None:
        """Return when nothing waits any more for a process that is not there yet; then stop it."""
        await self.stir.when(lambda: self.told_to_end.is_set() or not self.usage.waiting)
        self.ask(Wish.STOP)

    async def until_start(self) -> None:
        """Return when a process is wanted."""
        await self.stir.when(lambda: self.wish is Wish.SERVE)

    async def _idle_for(self, limit: float) -> None:
        """Return when nobody has used the model or had a lease on it for this long."""
        while True:
            await self.stir.when(lambda: not self.is_leased())
            await self.usage.idle_for(limit)
            if not self.is_leased():
                return

    async def _changed_from(self, limits: Limits) -> None:
        await self.stir.when(lambda: self.limits is not limits)

    def _is_wanted(self) -> bool:
        return self.wish is Wish.SERVE and not self.told_to_end.is_set()

    def _rest_is_due(self) -> bool:
        return self.found_asleep or (self.wish in RESTING and self.usage.in_flight == 0)

    def _is_draining(self) -> bool:
        return self.wish in RESTING and self.usage.in_flight > 0

    def _rest_if_idle(self) -> None:
        """Let the model sleep or its process end, if it was idle for the time of either."""
        sleep, stop = self.limits.sleep_ttl, self.limits.stop_ttl
        if self.is_leased():
            return
        if self.wish is not Wish.STOP and self.usage.is_idle_for(stop):
            self.tell(Wish.STOP, stop)
            self.ask(Wish.STOP)
        elif self.wish is Wish.SERVE and self.usage.is_idle_for(sleep):
            self.tell(Wish.SLEEP, sleep)
            self.ask(Wish.SLEEP)

    async def _drain_too_long(self) -> str:
        """Return what to log of requests that delay a rest for longer than they may."""
        while True:
            await self.stir.when(lambda: bool(self.limits.drain) and self._is_draining())
            limit = self.limits.drain
            with trio.move_on_after(limit) as scope:
                await self.stir.when(lambda: not self._is_draining())
            if scope.cancelled_caught:
                return f"requests were still running after {seconds(limit)} (drainTimeout)"
