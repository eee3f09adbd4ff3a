"""How many models may sleep, and in how much host memory; which are stopped if there are too many.

`too_many` is pure. The keeper's task measures and acts when a model has fallen asleep. On this
machine, the operator's limits apply. In an allocation of a cluster, its memory is the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import structlog
import trio

from configschema import Config
from supervisor.model.server import ModelServer
from supervisor.processes.memory import Measure
from supervisor.states.causes import Cause, Why
from supervisor.states.snapshot import UNKNOWN, Costs
from supervisor.states.table import HOLDS_MEMORY, State, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

GIB = 1 << 30
LEFT_THERE = 0.05  # share of an allocation's memory; beyond its limit, processes are ended


@attrs.frozen(kw_only=True)
class Budget:
    """What all sleeping models may take together; 0 is no limit.

    Attributes:
        sleepers: the number of sleeping models.
        memory: bytes of host memory.
    """

    sleepers: int = 0
    memory: int = 0


def budget_for(config: Config) -> Budget:
    """Return the budget of a configuration."""
    return Budget(sleepers=config.max_sleepers, memory=config.max_sleep_memory * GIB)


@attrs.frozen(kw_only=True)
class Sleeper:
    """One sleeping model.

    Attributes:
        model: its id.
        idle: seconds since it was last used.
        costs: what its steps take; a wake saves the difference to a start.
        memory: bytes that it holds.
        is_pinned: whether it counts but is not stopped.
    """

    model: str
    idle: float
    costs: Costs = UNKNOWN
    memory: int = 0
    is_pinned: bool = False


def too_many(sleepers: Sequence[Sleeper], budget: Budget) -> list[str]:
    """Return the models to stop, the least valuable first, until the rest fits.

    Pinned models stay, even if they alone are too many.
    """
    left = by_value(sleepers, by_memory=_takes(sleepers) > budget.memory > 0)
    stopped: list[str] = []
    for one in [one for one in left if not one.is_pinned]:
        if not _is_beyond(left, budget):
            break
        left.remove(one)
        stopped.append(one.model)
    return stopped


def _is_beyond(sleepers: Sequence[Sleeper], budget: Budget) -> bool:
    return len(sleepers) > budget.sleepers > 0 or _takes(sleepers) > budget.memory > 0


def by_value(sleepers: Iterable[Sleeper], *, by_memory: bool = False) -> list[Sleeper]:
    """Return sleepers in the order in which they are stopped, the least valuable first."""
    return sorted(sleepers, key=lambda one: _value(one, by_memory=by_memory))


def _takes(sleepers: Iterable[Sleeper]) -> int:
    return sum(one.memory for one in sleepers)


def _value(sleeper: Sleeper, *, by_memory: bool) -> float:
    """Return the seconds that its sleep is likely to save, for each byte if memory is scarce.

    A model that was used recently is used again soon. A saving that was never measured counts as a
    second.
    """
    start, wake = sleeper.costs.start, sleeper.costs.wake
    saved = max(start - (wake or 0), 0.001) if start else 1.0
    value = saved / (1 + sleeper.idle)
    return value / max(sleeper.memory, 1) if by_memory else value


@attrs.define(eq=False)
class BudgetKeeper:
    """Stops sleepers if there are too many.

    Attributes:
        servers: all model servers by id.
        budget: what the sleepers may take.
        measure: measures the memory of a process tree.
    """

    servers: Mapping[str, ModelServer]
    budget: Budget
    measure: Measure
    _look: trio.Event = attrs.field(factory=trio.Event, init=False)

    def look(self) -> None:
        """Ask for a look: a model has fallen asleep, or the budget has changed."""
        self._look.set()

    async def run(self) -> None:
        """Keep to the budget for as long as the daemon runs."""
        while True:
            await self._look.wait()
            self._look = trio.Event()
            if self.budget.sleepers or self.budget.memory:
                await self._keep("", self.budget, "maxSleepers or maxSleepMemory allows")
            for name, size in self._sizes_there().items():
                await self._keep_there(name, size)

    def _sizes_there(self) -> dict[str, int]:
        """Return the host memory of each allocation with sleepers, if the file says its size."""
        held = [server.model.holding for server in self._asleep(None)]
        sizes = {one.name: one.allocation.memory for one in held if one}
        return {name: size for name, size in sizes.items() if size}

    async def _keep_there(self, home: str, size: int) -> None:
        """Limit an allocation's sleepers to the memory that its awake models leave."""
        awake = 0
        for server in self._in(home):
            if server.at.state in HOLDS_MEMORY:
                awake += (await server.weigh()).host or 0
        budget = Budget(memory=max(1, int(size * (1 - LEFT_THERE)) - awake))
        await self._keep(home, budget, f"mem of allocation {home} has room for")

    async def _keep(self, home: str, budget: Budget, limit: str) -> None:
        sleepers = [await self._weigh(server, budget) for server in self._asleep(home)]
        for model in too_many(sleepers, budget):
            server = self.servers.get(model)
            # It may have been requested, or pinned, while others were measured.
            if server in self._asleep(home) and server.snapshot().pin is None:
                self._stop(server, sleepers, limit)

    def _in(self, home: str) -> list[ModelServer]:
        return [server for server in self.servers.values() if server.model.allocation == home]

    def _asleep(self, home: str | None) -> list[ModelServer]:
        """Return the sleepers that no request waits for, of one home or of all."""
        return [
            server
            for server in (self.servers.values() if home is None else self._in(home))
            if server.snapshot().state is State.ASLEEP and not server.usage.waiting
        ]

    async def _weigh(self, server: ModelServer, budget: Budget) -> Sleeper:
        snapshot, memory = server.snapshot(), 0
        if server.model.holding:
            memory = (await server.weigh()).host or 0
        elif budget.memory and snapshot.pid:
            memory = await self.measure(snapshot.pid)
        return Sleeper(
            model=snapshot.model,
            idle=server.usage.idle_seconds(),
            costs=snapshot.costs,
            memory=memory,
            is_pinned=snapshot.pin is not None,
        )

    def _stop(self, server: ModelServer, sleepers: Sequence[Sleeper], limit: str) -> None:
        model, count, held = server.model.id, len(sleepers), _takes(sleepers)
        memory = f" with {held / GIB:.1f} GiB" if held else ""
        reason = f"{count} models sleep{memory}, more than {limit}"
        log.info(f"<{model}> Stopping sleeping model: {reason}", model=model, reason=reason)
        server.wish(Wish.STOP, Cause(why=Why.BUDGET, text=reason))
