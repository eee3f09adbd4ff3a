"""A day of requests in virtual time, decided by the same functions as in the daemon.

Owns model servers that are nothing but states and durations. Failures, idle times and limits of the
queue are not played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import count
from math import inf

import attrs

from supervisor.scheduling.placement import MakeRoom
from supervisor.scheduling.turns import Decision, Demand, Patience, decide
from supervisor.states.snapshot import Costs, Snapshot
from supervisor.states.table import AT_REST, HOLDS_MEMORY, Event, State, Wish, step


@attrs.frozen
class Arrival:
    """One request of a trace: when it comes, and the seconds it takes once it is served."""

    at: float
    model: str
    serve: float


@attrs.frozen(kw_only=True)
class Durations:
    """How long the steps of one model take, in seconds."""

    start: float = 30
    stop: float = 1
    sleep: float = 1
    wake: float = 1
    can_sleep: bool = True
    priority: int = 0


@attrs.frozen
class Span:
    """A time in which a model held memory: what it did then, from when to when."""

    model: str
    state: State
    begin: float
    end: float


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a trace.

    Attributes:
        waits: seconds each request waited, by model, in the order of their service.
        activations: starts and wakes.
        spans: who held memory, and when.
        end: when the last request had ended.
        serving: seconds in which some model had a request.
        changing: seconds in which none had, and some model started, stopped, slept or woke.
    """

    waits: Mapping[str, list[float]]
    activations: int
    spans: list[Span]
    end: float
    serving: float
    changing: float


BEGIN = {State.ASLEEP: Event.WAKE, State.STOPPED: Event.START}
DONE = {
    State.STARTING: Event.BECAME_READY,
    State.WAKING: Event.WOKE,
    State.FALLING_ASLEEP: Event.SLEPT,
    State.STOPPING: Event.ENDED,
}


@attrs.define(eq=False)
class _Server:
    """A model server of a simulation."""

    name: str
    durations: Durations
    state: State = State.STOPPED
    wish: Wish = Wish.STOP
    in_flight: int = 0
    since: float = 0
    ready_since: float = 0
    idle_since: float = 0
    life: int = 0  # steps taken: what was planned for an earlier one is void
    costs: Costs = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        times = self.durations
        self.costs = Costs(start=times.start, stop=times.stop, sleep=times.sleep, wake=times.wake)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            model=self.name,
            state=self.state,
            wish=self.wish,
            in_flight=self.in_flight,
            can_sleep=self.durations.can_sleep,
            ready_since=self.ready_since,
            idle_since=self.idle_since,
            costs=self.costs,
        )

    def takes(self) -> float:
        """Return the seconds that its present state lasts."""
        times = self.durations
        return {
            State.STARTING: times.start,
            State.WAKING: times.wake,
            State.FALLING_ASLEEP: times.sleep,
            State.STOPPING: times.stop,
        }.get(self.state, inf)

    def next_event(self) -> Event | None:
        """Return what its task would do now."""
        if self.state in AT_REST and self.wish is Wish.SERVE:
            return BEGIN[self.state]
        if self.wish is Wish.STOP and self.state not in (State.STOPPED, State.STOPPING):
            return Event.STOP
        if self.state is State.READY and self.wish is Wish.SLEEP and not self.in_flight:
            return Event.SLEEP
        return None


@attrs.define(eq=False)
class Simulation:
    """Play requests against the decisions.

    Attributes:
        durations: of every model, by id.
        make_room: who must leave for whom.
        patience: how long one waits for another.
        first_come: serve strictly in the order of coming instead, for comparison.
    """

    durations: Mapping[str, Durations]
    make_room: MakeRoom
    patience: Patience
    first_come: bool = False
    _servers: dict[str, _Server] = attrs.field(init=False)
    _active: set[str] = attrs.field(factory=set, init=False)
    _queues: dict[str, deque[Arrival]] = attrs.field(factory=dict, init=False)
    _order: deque[Arrival] = attrs.field(factory=deque, init=False)
    _agenda: list[tuple[float, int, str, int]] = attrs.field(factory=list, init=False)
    _numbers: count[int] = attrs.field(factory=count, init=False)
    _waits: dict[str, list[float]] = attrs.field(factory=dict, init=False)
    _spans: list[Span] = attrs.field(factory=list, init=False)
    _activations: int = attrs.field(default=0, init=False)
    _in_flight: int = attrs.field(default=0, init=False)
    _changing: int = attrs.field(default=0, init=False)
    _now: float = attrs.field(default=0, init=False)
    _seconds_serving: float = attrs.field(default=0, init=False)
    _seconds_changing: float = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._servers = {name: _Server(name, times) for name, times in self.durations.items()}

    def play(self, arrivals: Iterable[Arrival]) -> Outcome:
        """Play a trace to the end of its last request."""
        coming = deque(sorted(arrivals, key=lambda arrival: arrival.at))
        alarm = inf
        while coming or self._in_flight or self._queues:
            first = coming[0].at if coming else inf
            planned = self._agenda[0][0] if self._agenda else inf
            self._advance(min(first, planned, alarm))
            while coming and coming[0].at <= self._now:
                self._arrive(coming.popleft())
            while self._agenda and self._agenda[0][0] <= self._now:
                self._happen(*heappop(self._agenda)[2:])
            alarm = self._settle()
        return Outcome(
            waits=self._waits,
            activations=self._activations,
            spans=[*self._spans, *self._open_spans()],
            end=self._now,
            serving=self._seconds_serving,
            changing=self._seconds_changing,
        )

    def _open_spans(self) -> list[Span]:
        active = [self._servers[name] for name in sorted(self._active)]
        holding = [server for server in active if server.state in HOLDS_MEMORY]
        return [Span(one.name, one.state, one.since, self._now) for one in holding]

    def _advance(self, now: float) -> None:
        passed = now - self._now
        if self._in_flight:
            self._seconds_serving += passed
        elif self._changing:
            self._seconds_changing += passed
        self._now = now

    def _arrive(self, arrival: Arrival) -> None:
        self._queues.setdefault(arrival.model, deque()).append(arrival)
        if self.first_come:
            self._order.append(arrival)

    def _plan(self, after: float, model: str, life: int) -> None:
        heappush(self._agenda, (self._now + after, next(self._numbers), model, life))

    def _happen(self, model: str, life: int) -> None:
        """A request has ended (life 0), or a step of that life is done."""
        server = self._servers[model]
        if not life:
            server.in_flight -= 1
            server.idle_since = self._now
            self._in_flight -= 1
            self._move(server)
        elif life == server.life:
            self._step(server, DONE[server.state])
            self._move(server)

    def _move(self, server: _Server) -> None:
        while event := server.next_event():
            self._step(server, event)

    def _step(self, server: _Server, event: Event) -> None:
        if server.state in HOLDS_MEMORY and self._now > server.since:
            self._spans.append(Span(server.name, server.state, server.since, self._now))
        self._changing -= server.state in DONE
        server.state = step(server.state, event)
        self._changing += server.state in DONE
        server.since = self._now
        server.life += 1
        if server.state is State.READY:
            server.ready_since = server.idle_since = self._now
        self._activations += event in (Event.START, Event.WAKE)
        if (seconds := server.takes()) < inf:
            self._plan(seconds, server.name, server.life)
        if server.state in AT_REST:
            self._active.discard(server.name)
        else:
            self._active.add(server.name)

    def _settle(self) -> float:
        """Do what is decided until nobody more gets in; return when to decide again."""
        while self._queues:
            decision = self._decide()
            for name, wish in decision.wishes.items():
                self._servers[name].wish = wish
                self._move(self._servers[name])
            for name in decision.admit:
                while self._is_next(name):
                    self._serve(self._take(name))
            if not decision.admit:
                return decision.until
        return inf

    def _decide(self) -> Decision:
        waited_for = [self._order[0].model] if self.first_come else self._queues
        demands = [
            Demand(
                model=name,
                since=self._queues[name][0].at,
                count=len(self._queues[name]),
                priority=self.durations[name].priority,
            )
            for name in waited_for
        ]
        models = {name: self._servers[name].snapshot() for name in {*waited_for, *self._active}}
        patience = Patience(max_wait=0) if self.first_come else self.patience
        return decide(demands, models, self.make_room, patience, self._now)

    def _is_next(self, name: str) -> bool:
        return name in self._queues and (not self.first_come or self._order[0].model == name)

    def _take(self, name: str) -> Arrival:
        arrival = self._queues[name].popleft()
        if self.first_come:
            self._order.popleft()
        if not self._queues[name]:
            del self._queues[name]
        return arrival

    def _serve(self, arrival: Arrival) -> None:
        server = self._servers[arrival.model]
        server.in_flight += 1
        self._in_flight += 1
        self._waits.setdefault(arrival.model, []).append(self._now - arrival.at)
        self._plan(arrival.serve, arrival.model, 0)
