"""Who uses a model now, and since when nobody does.

Owns the count of leases and the idle time, and the way to wait for a condition that others bring
about. What follows from either is the model server's business.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio


@attrs.define(eq=False)
class Stir:
    """Something several tasks look at has changed: whoever waits for a condition looks again."""

    _event: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __call__(self) -> None:
        """Let everybody look again."""
        self._event.set()
        self._event = trio.Event()

    async def when(self, condition: Callable[[], bool]) -> None:
        """Return in a step in which the condition holds."""
        while not condition():
            await self._event.wait()


@attrs.define(eq=False)
class Usage:
    """The leases on one model.

    Attributes:
        stir: told of every lease that is given back.
        in_flight: leases given and not yet returned.
    """

    stir: Stir
    in_flight: int = attrs.field(default=0, init=False)
    _idle_since: float = attrs.field(default=0.0, init=False)

    def begin(self) -> None:
        """Count the idle time from now."""
        self._idle_since = trio.current_time()

    def take(self) -> None:
        """Count one more user."""
        self.in_flight += 1

    def give_back(self) -> None:
        """Count one user less."""
        self.in_flight -= 1
        self.begin()
        self.stir()

    async def idle_for(self, seconds: float) -> None:
        """Return when nobody has used the model for so long; a long request is use. 0 is never."""
        if not seconds:
            await trio.sleep_forever()
        await self.stir.when(lambda: self.in_flight == 0)
        while (left := self._idle_since + seconds - trio.current_time()) > 0:
            await trio.sleep(left)
            await self.stir.when(lambda: self.in_flight == 0)
