"""Who waits for which model, and what is done about it.

Owns the waiting list. `turns.decide` says everything that should happen now. `Scheduler.settle`
does all of that; it is called after every change and when a time has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import attrs
import structlog
import trio

from supervisor.model.server import ModelServer
from supervisor.model.usage import Stir
from supervisor.scheduling.apart import Rooms
from supervisor.scheduling.decisions import NOTHING, Decision, Demand
from supervisor.scheduling.forecast import Forecast
from supervisor.scheduling.foretelling import Foretelling
from supervisor.scheduling.outlook import Outlook, Rules
from supervisor.scheduling.queueing import Queued, Turn, WaitingList
from supervisor.scheduling.rulings import Rulings
from supervisor.scheduling.shares import Shares
from supervisor.scheduling.turns import decide
from supervisor.states.backoff import LONGEST_HELD
from supervisor.states.causes import AN_OPERATOR, Asker, Asking
from supervisor.states.durations import seconds
from supervisor.states.journal import SILENT, Journal
from supervisor.states.refusals import (
    BackingOff,
    ModelFailed,
    NoRoom,
    Paused,
    QueueFull,
    StillHeld,
    SupervisorError,
    TooManyRequests,
)
from supervisor.states.table import Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

FOR_STRANGERS = 5.0  # seconds that a request waits for memory that others than models hold
BETWEEN_LOOKS = 0.5


@attrs.define(eq=False)
class Scheduler:
    """Gives leases on model servers.

    Attributes:
        servers: all model servers by id.
        rules: the order, and which models run together.
        rooms: the memory that there is.
        journal: told of what is decided.
        paused: whether no request is let in.
        waiting: the turns that wait.
        rulings: what was decided, and why.
        shares: what each API key has had.
    """

    servers: Mapping[str, ModelServer]
    rules: Rules
    rooms: Rooms
    journal: Journal = SILENT
    paused: bool = attrs.field(default=False, init=False)
    waiting: WaitingList = attrs.field(factory=WaitingList, init=False)
    rulings: Rulings = attrs.field(init=False)
    shares: Shares = attrs.field(init=False)
    _refuses: bool = attrs.field(default=False, init=False)
    _resumed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _decision: Decision = attrs.field(default=NOTHING, init=False)
    _closed: Stir = attrs.field(factory=Stir, init=False)
    _pause: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _foretelling: Foretelling = attrs.field(init=False)

    @rulings.default
    def _nothing_ruled_yet(self) -> Rulings:
        return Rulings(self.servers, self.waiting, self.journal)

    @shares.default
    def _nothing_had_yet(self) -> Shares:
        return Shares(self.rules.shares)

    @_foretelling.default
    def _nothing_foretold_yet(self) -> Foretelling:
        return Foretelling(self.servers, self.rooms)

    def change(self, rules: Rules) -> None:
        """Apply other rules from now on."""
        self.rules, self.shares.weights = rules, rules.shares

    async def run(self) -> None:
        """Settle whenever a time has come; changes settle by themselves."""
        while True:
            with trio.CancelScope(deadline=self._decision.until) as self._pause:
                await trio.sleep_forever()
            self.settle()

    def lease(self, model: str, asker: Asking = AN_OPERATOR) -> Turn:
        """Return the way to a lease on a model; entering it queues for it."""
        return Turn(self, self.servers[model], asker)

    def join(self, turn: Turn) -> bool:
        """Queue; return whether the wait is over already. Raises an immediate refusal."""
        server = turn.server
        server.usage.note_wanted()
        self._refuse_beyond_limits(server, turn)
        self.rooms.of(server).used()
        self.shares.come(turn)
        if server.is_serving and not self.paused and self._lets_in(server):
            turn.lease = server.usage.take()  # what `decide` would say
            return True
        self.waiting.add(turn)
        self.settle()
        return turn.answered.is_set()

    def _lets_in(self, server: ModelServer) -> bool:
        """Whether a serving model accepts newcomers; when it closes is known already."""
        usage, limit = server.usage, server.limits.concurrency
        is_free = usage.in_flight < limit and not usage.waiting
        return is_free and server.model.id not in self._decision.closed

    def _refuse_beyond_limits(self, server: ModelServer, turn: Turn) -> None:
        model, usage, limit = server.model.id, server.usage, server.limits.concurrency
        if self.paused and self._refuses:
            raise Paused(model)
        held = server.held_back
        if held > LONGEST_HELD:
            raise BackingOff(model, held, server.backoff.failures, server.at.failure or "")
        if usage.in_flight + usage.waiting >= limit and not self.shares.may_come(turn, limit):
            raise TooManyRequests(model, limit)
        most, is_open = self.rules.max_queue, model not in self._decision.closed
        if most and len(self.waiting) >= most and not (server.is_serving and is_open):
            others = [one for one in self.waiting if not self._is_open(one.server)]
            if len(others) >= most and not self.shares.may_wait(turn, others, most):
                raise QueueFull(model, most)

    def _is_open(self, server: ModelServer) -> bool:
        """Whether it serves newcomers; requests that wait for it wait for a place."""
        return server.is_serving and server.model.id not in self._decision.closed

    def place(self, model: str) -> int:
        """Return a model's place among those that are waited for, 1 is first; 0 if it is not."""
        return next((n for n, name in enumerate(self._demands(), 1) if name == model), 0)

    def queue(self, most: int) -> list[Queued]:
        """Return the requests that wait, in the order of arrival, up to this many."""
        places = {name: place for place, name in enumerate(self._demands(), 1)}
        behind, closing = self._decision.behind, self._decision.closing
        return [
            Queued(
                model=name,
                asker=Asker.of(turn.asker),
                since=turn.since,
                place=places[name],
                behind=tuple(sorted(behind.get(name, ()))),
                closing=closing.get(name, inf),
            )
            for turn in self.waiting.turns[:most]
            for name in (turn.server.model.id,)
        ]

    def ready_in(self, model: str) -> Forecast | None:
        """Return when a model would be ready for a new request; None if not known, or paused."""
        if self.paused or model not in self.servers:
            return None
        closed = self._decision.closed
        return self._foretelling.of(model, self._demands, closed, self.rules)

    async def until_closed(self, model: str) -> None:
        """Return when a model is closed for newcomers, since its requests keep others out."""
        await self._closed.when(lambda: model in self._decision.closed)

    def settle(self) -> None:
        """Do what should happen now. Call after every change."""
        if self._decision is NOTHING and not self.waiting.turns:  # the usual case
            return
        self._refuse_what_is_held()
        before, self._decision = self._decision, self._decide()
        if self._decision.until != before.until:  # moving a deadline takes longer than deciding
            self._pause.deadline = self._decision.until
        if self._decision.closed != before.closed:
            self._closed()
        self.rulings.note(self._decision)
        for model in self._decision.cut:
            server = self.servers[model]
            limit = seconds(server.limits.drain)
            after = f"requests delayed others for {limit} (drainTimeout)"
            log.error(f"<{model}> {after}, stopping it", model=model, reason=after)
        for model, wish in self._decision.wishes.items():
            self._ask(self.servers[model], wish)
        for turn in self.waiting.let_go(self._admitted()):
            turn.lease = turn.server.usage.take()
            turn.answered.set()

    def _admitted(self) -> list[Turn]:
        """Return the turns that get a lease: all for a model, or as many as it has places."""
        names = dict.fromkeys(turn.server.model.id for turn in self.waiting.turns)
        each = [self.waiting.of(name) for name in names if name in self._decision.admit]
        return [turn for turns in each for turn in self._with_places(turns)]

    def _with_places(self, turns: list[Turn]) -> list[Turn]:
        server = turns[0].server
        if server.model.id in self._decision.closed:  # it is for those that waited for its start
            turns = [turn for turn in turns if turn.since <= server.at.ready_since]
        places = max(0, server.limits.concurrency - server.usage.in_flight)
        return self.shares.next_of(server.model.id, turns, places)

    def _ask(self, server: ModelServer, wish: Wish) -> None:
        """Tell a model server what is decided, and log for which model it makes room."""
        model = server.model.id
        wanted = self._decision.causes.get(model)
        if wanted and server.wanted.wish is Wish.SERVE:
            log.info(f"<{model}> Makes room for '{wanted}'", model=model, needed_by=wanted)
        if wish is Wish.SERVE and server.wanted.wish is not Wish.SERVE:
            self.shares.charge(self.waiting.of(model))
        if wish is Wish.SERVE and self.rules.memory:
            gpus = self._decision.gpus.get(model, server.known.gpus)
            self.rooms.of(server).seat(server, gpus)
        server.wish(wish, self.rulings.why(server, wish, self._decision, self.rules.word))

    def _refuse_what_is_held(self) -> None:
        """Refuse requests that need the room of something that could not be ended."""
        left = {name: one.at.left for name, one in self.servers.items() if one.at.left}
        for name in self._demands() if left else ():
            others = frozenset() if self.rules.memory else frozenset(left)
            holders = self.rules.make_room(name, others) | (left.keys() & {name})
            for holder in sorted(holders)[:1]:
                self.refuse(name, StillHeld(name, holder, left[holder]))

    def _decide(self) -> Decision:
        if self.paused or not self.waiting:
            return NOTHING
        now, waited_for = trio.current_time(), self._demands()
        held = {name: self.servers[name].held_back for name in waited_for}
        demands = {name: one for name, one in waited_for.items() if not held[name]}
        if self.rules.memory and self.rooms.stale(demands):
            return self._until_memory_is_seen(demands)
        outlook = Outlook.of(self.servers, demands, self.rules, self.rooms)
        patience = self.rules.patience
        decision = decide(
            *(demands.values(), outlook.models, outlook.rivals, patience, now, outlook.usual)
        )
        placed = {*decision.admit, *decision.wishes, *decision.causes.values()}
        again = [
            self._refuse_blocked(one, outlook, now)
            for name, one in demands.items()
            if name not in placed
        ]
        starts = [now + wait for wait in held.values() if wait]
        return attrs.evolve(decision, until=min([decision.until, *starts, *again]))

    def _until_memory_is_seen(self, demands: Iterable[str]) -> Decision:
        """Let requests in that need no change; the rest is decided after the next look."""
        closed = self._decision.closed
        serving = {name for name in demands if self.servers[name].is_serving}
        return Decision(admit=frozenset(serving) - closed, closed=closed)

    def _refuse_blocked(self, demand: Demand, outlook: Outlook, now: float) -> float:
        """Refuse requests for which nothing can make room; return when to check again if they wait.

        Strangers may be freeing their memory already, such as a process that has just ended.
        """
        blocked = outlook.blocked(demand.model)
        if blocked is None:
            return inf
        if blocked.by_strangers and now < demand.since + FOR_STRANGERS:
            return now + BETWEEN_LOOKS
        self.refuse(demand.model, NoRoom(demand.model, blocked.why, blocked.until - now))
        return inf

    def _demands(self) -> dict[str, Demand]:
        """Return what is waited for, in the order of arrival."""
        return self.waiting.demands(self.rules.priorities, self.shares.start_of)

    def pause(self, *, refuse: bool) -> None:
        """Let no request in; also refuse those that wait, if that is wanted."""
        self.paused, self._refuses = True, refuse
        for name in self._demands() if refuse else ():
            self.refuse(name, Paused(name))

    def resume(self) -> None:
        """Let waiting requests in again."""
        self.paused = False
        self._resumed.set()
        self._resumed = trio.Event()
        self.settle()

    async def resumed(self) -> None:
        """Wait until a pause is over."""
        await self._resumed.wait()

    def fail(self, model: str, reason: str) -> None:
        """Tell all requests that wait for a model why it failed."""
        self.refuse(model, ModelFailed(model, reason))

    def refuse(self, model: str, error: SupervisorError) -> None:
        """Refuse all requests that wait for a model."""
        for turn in self.waiting.take({model}):
            turn.refusal = error
            turn.answered.set()

    def leave(self, turn: Turn, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is."""
        self.shares.go(turn)
        if turn.lease is not None:
            turn.lease.give_back(cut=cut)
            usage = turn.server.usage
            if usage.in_flight and not usage.waiting:  # no one waits for one lease of several
                return
        elif turn in self.waiting:
            self.waiting.remove(turn)
        self.settle()
