"""Who waits for which model, and what is done about it.

Owns the waiting list and the leases. `turns.decide` says everything that should happen now;
`Scheduler.settle` does it, and is called after every change and when a time has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import structlog
import trio

from configschema import Config
from supervisor.model.server import ModelServer
from supervisor.model.usage import Lease, Stir
from supervisor.scheduling.placement import MakeRoom, placement_of
from supervisor.scheduling.turns import NOTHING, Decision, Demand, Patience, decide
from supervisor.states.backoff import LONGEST_HELD
from supervisor.states.durations import seconds
from supervisor.states.refusals import (
    BackingOff,
    ModelFailed,
    Paused,
    QueueFull,
    StillHeld,
    SupervisorError,
    TooManyRequests,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.frozen(kw_only=True)
class Rules:
    """What an operator says about who goes when.

    Attributes:
        make_room: who must leave for whom.
        patience: how long one waits for another.
        priorities: by model id; 0 without.
        max_queue: requests that may wait, for all models together; 0 is no limit.
    """

    make_room: MakeRoom
    patience: Patience = attrs.field(factory=Patience)
    priorities: Mapping[str, int] = attrs.field(factory=dict)
    max_queue: int = 0


def rules_for(config: Config) -> Rules:
    """Return the rules of a configuration."""
    priorities = config.routing.scheduler.settings.fifo.priority
    found = [(config.find(name), priority) for name, priority in priorities.items()]
    return Rules(
        make_room=placement_of(config),
        patience=Patience(max_wait=config.max_wait, min_active=config.min_active),
        priorities={model.id: priority for model, priority in found if model},
        max_queue=config.max_queue,
    )


@attrs.define(eq=False)
class Turn:
    """A place in the queue, then a lease: use it as ``async with``, once.

    Entering waits until the model serves; it goes on serving for as long as the block lasts.
    """

    _scheduler: Scheduler
    server: ModelServer
    since: float = attrs.field(default=0.0, init=False)
    lease: Lease | None = attrs.field(default=None, init=False)
    answered: trio.Event = attrs.field(init=False)  # there once it is queued
    refusal: SupervisorError | None = attrs.field(default=None, init=False)

    async def __aenter__(self) -> ModelServer:
        """Wait for the lease.

        Raises:
            TooManyRequests: the model's limit is reached; nothing was queued.
            QueueFull: as many wait as may; nothing was queued.
            Paused: nobody may wait now; nothing was queued.
            BackingOff: it fails again and again; nothing was queued.
            ModelFailed: it could not be brought up.
            Unloaded, Removed: an operator stopped it, or took it away, meanwhile.
        """
        if not self._scheduler.join(self):
            try:
                await self.answered.wait()
            except BaseException:  # cancelled: nobody waits here any more
                self._scheduler.leave(self)
                raise
        if self.refusal is not None:
            self._scheduler.leave(self)
            raise self.refusal
        return self.server

    async def __aexit__(self, error: object, *_: object) -> None:
        self._scheduler.leave(self, cut=error is not None)

    def leave(self, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is; `cut` is before the answer's end."""
        self._scheduler.leave(self, cut=cut)


@attrs.define(eq=False)
class Scheduler:
    """Give leases on model servers.

    Attributes:
        servers: all model servers by id.
        rules: in which order, and who beside whom.
        paused: whether nobody is let in.
    """

    servers: Mapping[str, ModelServer]
    rules: Rules
    paused: bool = attrs.field(default=False, init=False)
    _refuses: bool = attrs.field(default=False, init=False)
    _resumed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _waiting: list[Turn] = attrs.field(factory=list, init=False)
    _decision: Decision = attrs.field(default=NOTHING, init=False)
    _closed: Stir = attrs.field(factory=Stir, init=False)
    _pause: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    async def run(self) -> None:
        """Settle whenever a time has come; changes settle by themselves."""
        while True:
            with trio.CancelScope(deadline=self._decision.until) as self._pause:
                await trio.sleep_forever()
            self.settle()

    def lease(self, model: str) -> Turn:
        """Return the way to a lease on a model; entering it queues for it."""
        return Turn(self, self.servers[model])

    def join(self, turn: Turn) -> bool:
        """Queue; return whether that is over already. Raises what refuses at once."""
        server = turn.server
        self._refuse_beyond_limits(server)
        if not self._waiting and not self.paused and server.is_serving:
            turn.lease = server.usage.take()  # what `decide` says where nobody else waits
            return True
        turn.since, turn.answered = trio.current_time(), trio.Event()
        self._waiting.append(turn)
        server.usage.add_waiter()
        self.settle()
        return turn.answered.is_set()

    def _refuse_beyond_limits(self, server: ModelServer) -> None:
        model, usage = server.model.id, server.usage
        if self.paused and self._refuses:
            raise Paused(model)
        held = server.held_back
        if held > LONGEST_HELD:
            raise BackingOff(model, held, server.backoff.failures, server.at.failure or "")
        if usage.in_flight + usage.waiting >= server.limits.concurrency:
            raise TooManyRequests(model, server.limits.concurrency)
        most, is_open = self.rules.max_queue, model not in self._decision.closed
        if most and len(self._waiting) >= most and not (server.is_serving and is_open):
            raise QueueFull(model, most)

    def place(self, model: str) -> int:
        """Return the place of a model among those that are waited for, 1 is first; 0 is none."""
        return next((n for n, name in enumerate(self._demands(), 1) if name == model), 0)

    async def until_closed(self, model: str) -> None:
        """Return when a model is closed for newcomers, since its requests keep others out."""
        await self._closed.when(lambda: model in self._decision.closed)

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each model."""
        return {name: demand.count for name, demand in self._demands().items()}

    def settle(self) -> None:
        """Do what should happen now. Call after every change."""
        if not self._waiting and self._decision is NOTHING:  # as it is mostly
            return
        self._refuse_what_is_held()
        before, self._decision = self._decision, self._decide()
        if self._decision.until != before.until:  # to move a deadline takes longer than to decide
            self._pause.deadline = self._decision.until
        if self._decision.closed != before.closed:
            self._closed()
        for model in self._decision.cut:
            server = self.servers[model]
            limit = seconds(server.limits.drain)
            after = f"requests held up others for {limit} (drainTimeout)"
            log.error(f"<{model}> {after}, stopping it", model=model, reason=after)
        for model, wish in self._decision.wishes.items():
            self.servers[model].wish(wish)
        for turn in self._take(self._decision.admit):
            turn.lease = turn.server.usage.take()
            turn.answered.set()

    def _refuse_what_is_held(self) -> None:
        """Send away who needs the room of what could not be ended."""
        left = {name: one.at.left for name, one in self.servers.items() if one.at.left}
        for name in self._demands() if left else ():
            holders = self.rules.make_room(name, frozenset(left)) | (left.keys() & {name})
            for holder in sorted(holders)[:1]:
                self.refuse(name, StillHeld(name, holder, left[holder]))

    def _decide(self) -> Decision:
        if self.paused or not self._waiting:
            return NOTHING
        now = trio.current_time()
        waited_for = self._demands()
        held = {name: self.servers[name].held_back for name in waited_for}
        demands = {name: one for name, one in waited_for.items() if not held[name]}
        models = {
            name: server.snapshot()
            for name, server in self.servers.items()
            if name in demands or not server.is_at_rest
        }
        rules = self.rules
        decision = decide(demands.values(), models, rules.make_room, rules.patience, now)
        starts = [now + wait for wait in held.values() if wait]
        return attrs.evolve(decision, until=min([decision.until, *starts]))

    def _demands(self) -> dict[str, Demand]:
        """Return what is waited for; the list is in the order of their coming."""
        found: dict[str, Demand] = {}
        for turn in self._waiting:
            name = turn.server.model.id
            if name in found:
                continue
            found[name] = Demand(
                model=name,
                since=turn.since,
                count=self.servers[name].usage.waiting,
                priority=self.rules.priorities.get(name, 0),
            )
        return found

    def pause(self, *, refuse: bool) -> None:
        """Let nobody in; send everybody away, too, if that is wanted."""
        self.paused, self._refuses = True, refuse
        for name in self.waiting() if refuse else ():
            self.refuse(name, Paused(name))

    def resume(self) -> None:
        """Let those in who wait."""
        self.paused = False
        self._resumed.set()
        self._resumed = trio.Event()
        self.settle()

    async def resumed(self) -> None:
        """Wait until a pause is over."""
        await self._resumed.wait()

    def fail(self, model: str, reason: str) -> None:
        """Tell everybody who waits for a model why it failed."""
        self.refuse(model, ModelFailed(model, reason))

    def refuse(self, model: str, error: SupervisorError) -> None:
        """Send everybody who waits for a model away."""
        for turn in self._take({model}):
            turn.refusal = error
            turn.answered.set()

    def _take(self, models: Iterable[str]) -> list[Turn]:
        taken = [turn for turn in self._waiting if turn.server.model.id in models]
        for turn in taken:
            self._remove(turn)
        return taken

    def _remove(self, turn: Turn) -> None:
        self._waiting.remove(turn)
        turn.server.usage.remove_waiter()

    def leave(self, turn: Turn, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is."""
        if turn in self._waiting:
            self._remove(turn)
        elif turn.lease is not None:
            turn.lease.give_back(cut=cut)
        self.settle()
