"""A pause: the memory is freed for something else; what was awake starts or wakes again after it.

Owns the list of models that were awake. The scheduler decides which requests wait meanwhile, and
which are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import structlog
import trio

from supervisor.model.server import ModelServer
from supervisor.scheduling.scheduler import Scheduler
from supervisor.states.causes import Cause, Why
from supervisor.states.racing import race
from supervisor.states.table import AT_REST, BEFORE_READY, State, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Pausing:
    """Lets all models rest, then brings back those that were awake.

    Attributes:
        servers: all model servers by id.
        scheduler: lets no request in meanwhile.
        bring_back: starts or wakes a model; returns an event that is set when that has ended.
    """

    servers: Mapping[str, ModelServer]
    scheduler: Scheduler
    bring_back: Callable[[str, Why], trio.Event]
    _to_wake: set[str] = attrs.field(factory=set, init=False)

    def leave_out(self, model: str) -> None:
        """Exclude a model from coming back: it was unloaded meanwhile."""
        self._to_wake.discard(model)

    async def begin(self, *, refuse: bool) -> None:
        """Let all requests end, and all models rest; return when they rest, or at a resume.

        Args:
            refuse: whether requests are refused meanwhile, instead of waiting.
        """
        snapshots = [self.servers[name].snapshot() for name in sorted(self.servers)]
        held = [one for one in snapshots if one.stays]
        self._to_wake |= {one.model for one in held}
        what = "are refused" if refuse else "wait"
        log.info(f"Pause requested: all models sleep or stop, requests {what} until a resume")
        self.scheduler.pause(refuse=refuse)
        for snapshot in held:
            asleep_soon = snapshot.can_sleep and snapshot.state not in BEFORE_READY
            wish = Wish.SLEEP if asleep_soon else Wish.DRAIN
            self.servers[snapshot.model].wish(wish, Cause(why=Why.PAUSE))
        await race(self._all_at_rest, self.scheduler.resumed)

    async def _all_at_rest(self) -> None:
        async with trio.open_nursery() as nursery:
            for server in self.servers.values():
                nursery.start_soon(race, partial(server.reached, AT_REST), server.until_stuck)

    async def end(self) -> None:
        """Let requests in, and return when the models that were awake before are ready again."""
        names, self._to_wake = sorted(self._to_wake & self.servers.keys()), set()
        for server in self.servers.values():
            snapshot = server.snapshot()
            if snapshot.state is State.READY and not snapshot.leaving:
                server.wish(Wish.SERVE, Cause(why=Why.RESUME))  # it is still draining for the pause
        log.info(f"Resume requested; starting or waking: {', '.join(names) or 'nothing'}")
        self.scheduler.resume()
        for done in [self.bring_back(name, Why.RESUME) for name in names]:
            await done.wait()
