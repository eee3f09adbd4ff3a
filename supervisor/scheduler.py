"""Who waits for which model, and whose turn it is.

Owns the waiting list and the leases. `decide` is pure and says everything that should happen now;
`Scheduler.settle` does it, and is called after every change. Nothing here awaits but a waiter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from supervisor.errors import ModelFailed, SupervisorError, TooManyRequests
from supervisor.placement import Conflicts
from supervisor.server import ModelServer
from supervisor.states import AT_REST, HOLDS_MEMORY, IN_MOTION, Snapshot, State, Wish
from supervisor.usage import Lease


@attrs.frozen
class Decision:
    """What should happen now.

    Attributes:
        admit: models whose waiters all get a lease.
        wishes: what to ask of which model server.
    """

    admit: frozenset[str] = frozenset()
    wishes: Mapping[str, Wish] = attrs.field(factory=dict)


def decide(
    waiting: Sequence[str], models: Mapping[str, Snapshot], conflicts: Conflicts
) -> Decision:
    """Decide from who waits (model ids, oldest first) and how the models stand.

    What serves goes on serving, also to newcomers. A model in use is never asked to rest. A model
    that comes up is let come up while somebody waits for it. Models that do not conflict come up
    side by side; of two that do, the one with the older waiter goes first.
    """
    wanted = list(dict.fromkeys(waiting))
    admit = frozenset(name for name in wanted if models[name].serving)
    wishes: dict[str, Wish] = {}
    claimed: list[str] = []
    for name in wanted:
        if name in admit or any(conflicts(name, other) for other in claimed):
            continue
        claimed.append(name)
        rivals = [
            other
            for other in models.values()
            if other.model != name and other.claims_memory and conflicts(name, other.model)
        ]
        if any(_must_not_be_disturbed(rival, wanted, admit) for rival in rivals):
            continue
        wishes |= {rival.model: _rest(rival) for rival in rivals}
        if not any(rival.state in HOLDS_MEMORY for rival in rivals) and _can_be_called(
            models[name]
        ):
            wishes[name] = Wish.SERVE
    return Decision(admit, wishes)


def _must_not_be_disturbed(rival: Snapshot, wanted: Sequence[str], admit: frozenset[str]) -> bool:
    if rival.model in admit or rival.in_flight:
        return True
    coming = rival.state in IN_MOTION | AT_REST and rival.wish is Wish.SERVE
    return coming and rival.model in wanted


def _rest(rival: Snapshot) -> Wish:
    """Ask it to sleep if it can, else to stop; a start that nobody waits for is broken off."""
    if rival.can_sleep and rival.state not in (State.STARTING, State.STOPPED):
        return Wish.STOP if rival.wish is Wish.STOP else Wish.SLEEP
    return Wish.STOP


def _can_be_called(model: Snapshot) -> bool:
    """Whether a wish to serve makes sense: not while it is on its way to a sleep asked for."""
    return model.state in AT_REST | {State.STOPPING, State.FALLING_ASLEEP} or (
        model.wish is Wish.STOP
    )


@attrs.define(eq=False)
class _Waiter:
    model: str
    lease: Lease | None = None
    answered: trio.Event = attrs.field(factory=trio.Event)
    refusal: SupervisorError | None = None


@attrs.define(eq=False)
class Scheduler:
    """Give leases on model servers, one swap after the other.

    Attributes:
        servers: all model servers by id.
        conflicts: who may not run beside whom.
    """

    servers: Mapping[str, ModelServer]
    conflicts: Conflicts
    _waiting: list[_Waiter] = attrs.field(factory=list, init=False)

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[ModelServer]:
        """Wait until the model serves, and keep it serving for as long as the block lasts.

        Raises:
            TooManyRequests: its limit is reached; nothing was queued.
            ModelFailed: it could not be brought up.
            Unloaded: an operator stopped it meanwhile.
        """
        server = self.servers[model]
        queued = self.waiting().get(model, 0)
        if server.snapshot().in_flight + queued >= server.limits.concurrency:
            raise TooManyRequests(model, server.limits.concurrency)
        waiter = _Waiter(model)
        self._waiting.append(waiter)
        server.usage.add_waiter()
        try:
            self.settle()
            await waiter.answered.wait()
            if waiter.refusal is not None:
                raise waiter.refusal
            yield server
        finally:
            self._leave(waiter)

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each model."""
        names = [waiter.model for waiter in self._waiting]
        return {name: names.count(name) for name in names}

    def settle(self) -> None:
        """Do what should happen now. Call after every change."""
        if not self._waiting:
            return
        models = {name: server.snapshot() for name, server in self.servers.items()}
        decision = decide([waiter.model for waiter in self._waiting], models, self.conflicts)
        for model, wish in decision.wishes.items():
            self.servers[model].wish(wish)
        for waiter in self._take(decision.admit):
            waiter.lease = self.servers[waiter.model].usage.take()
            waiter.answered.set()

    def fail(self, model: str, reason: str) -> None:
        """Tell everybody who waits for a model why it failed."""
        self.refuse(model, ModelFailed(model, reason))

    def refuse(self, model: str, error: SupervisorError) -> None:
        """Send everybody who waits for a model away."""
        for waiter in self._take({model}):
            waiter.refusal = error
            waiter.answered.set()

    def _take(self, models: Iterable[str]) -> list[_Waiter]:
        taken = [waiter for waiter in self._waiting if waiter.model in models]
        for waiter in taken:
            self._remove(waiter)
        return taken

    def _remove(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self.servers[waiter.model].usage.remove_waiter()

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._remove(waiter)
        elif waiter.lease is not None:
            waiter.lease.give_back()
        self.settle()
