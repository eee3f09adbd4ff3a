"""A day of requests in virtual time, decided by the same functions as in the daemon.

Owns the time, who waits, and what is counted; `played` has the model servers. Failures, idle times,
limits of the queue and strangers' memory are not played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import count, islice
from math import inf

import attrs

from supervisor.playing.outcome import Arrival, Outcome, Span
from supervisor.playing.played import DONE, Durations, PlayedServer
from supervisor.room.ledger import Ledger
from supervisor.room.space import Space
from supervisor.scheduling.blocked import blocked_by_memory, blocked_by_rule
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Decision, Demand, Patience
from supervisor.scheduling.placement import ByRule, MakeRoom, Rivals
from supervisor.scheduling.turns import decide
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import HOLDS_MEMORY, Event, State, Wish


def _came(arrival: Arrival) -> float:
    return arrival.at


class _Servers(dict[str, Snapshot]):
    """Snapshots of the models that a decision goes through, and of any other that it asks for."""

    def __init__(self, servers: Mapping[str, PlayedServer], names: Iterable[str]) -> None:
        super().__init__((name, servers[name].snapshot()) for name in names)
        self._servers = servers

    def __missing__(self, name: str) -> Snapshot:
        return self._servers[name].snapshot()


@attrs.define(eq=False)
class Simulation:
    """Plays requests against the decisions.

    Attributes:
        durations: of every model, by id.
        room: who must make room for whom; or the memory, which then decides that.
        patience: how long requests wait for others.
        first_come: serve strictly in the order of arrival instead, for comparison.
        moves: how often a model's state has changed.
    """

    durations: Mapping[str, Durations]
    room: MakeRoom | Space
    patience: Patience
    first_come: bool = False
    moves: int = attrs.field(default=0, init=False)
    _servers: dict[str, PlayedServer] = attrs.field(init=False)
    _ledger: Ledger | None = attrs.field(init=False)
    _has_pins: bool = attrs.field(init=False)
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
    _refused: int = attrs.field(default=0, init=False)
    _closed: frozenset[str] = attrs.field(default=frozenset(), init=False)
    _alarm: float = attrs.field(default=inf, init=False)
    _is_stirred: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._servers = {name: PlayedServer(name, of) for name, of in self.durations.items()}
        self._ledger = Ledger(self.room) if isinstance(self.room, Space) else None
        self._has_pins = any(of.pin for of in self.durations.values())

    def play(self, arrivals: Iterable[Arrival]) -> Outcome:
        """Play a trace to the end of its last request."""
        coming = deque(sorted(arrivals, key=lambda arrival: arrival.at))
        while coming or self.is_busy:
            self.advance(min(coming[0].at if coming else inf, self.next_at))
            while coming and coming[0].at <= self._now:
                self.arrive(coming.popleft())
            self.go_on()
        return self.outcome()

    # The same in steps, for a caller that plays several at once.

    @property
    def is_busy(self) -> bool:
        """Whether a request is served or waits."""
        return bool(self._in_flight or self._queues)

    @property
    def in_flight(self) -> int:
        """How many requests are served."""
        return self._in_flight

    @property
    def next_at(self) -> float:
        """When something happens without a new request."""
        planned = self._agenda[0][0] if self._agenda else inf
        return min(planned, self._alarm)

    @property
    def servers(self) -> Mapping[str, PlayedServer]:
        """All model servers."""
        return self._servers

    def go_on(self) -> None:
        """Carry out what is due, and decide what follows."""
        while self._agenda and self._agenda[0][0] <= self._now:
            self._happen(*heappop(self._agenda)[2:])
        if self._is_stirred or self._alarm <= self._now:
            self._is_stirred, self._alarm = False, self._settle()

    def stop(self, name: str) -> None:
        """Stop a model without requests."""
        server = self._servers[name]
        server.ask(Wish.STOP, None)
        self._move(server)

    def take_back(self) -> list[Arrival]:
        """Take all waiting requests out of the queues, and return them."""
        waiting = sorted((one for queue in self._queues.values() for one in queue), key=_came)
        for name in list(self._queues):
            self._servers[name].wait(0, self._now)
        self._queues.clear()
        self._order.clear()
        return waiting

    def lose_all(self) -> int:
        """Lose all models at once; return how many requests were cut off by that."""
        cut = self._in_flight
        for server in self._servers.values():
            if server.state in HOLDS_MEMORY and self._now > server.since:
                self._spans.append(self._span(server))
            server.lose()
            self._note(server)
        self._agenda.clear()
        self._in_flight = self._changing = 0
        self._closed, self._alarm = frozenset(), inf
        return cut

    def outcome(self) -> Outcome:
        """Return the outcome so far."""
        return Outcome(
            waits=self._waits,
            activations=self._activations,
            spans=[*self._spans, *self._open_spans()],
            end=self._now,
            serving=self._seconds_serving,
            changing=self._seconds_changing,
            refused=self._refused,
        )

    def _open_spans(self) -> list[Span]:
        active = [self._servers[name] for name in sorted(self._active)]
        holding = [server for server in active if server.state in HOLDS_MEMORY]
        return [self._span(one) for one in holding]

    def _span(self, server: PlayedServer) -> Span:
        return Span(server.name, server.state, server.since, self._now, server.gpus)

    def advance(self, now: float) -> None:
        """Let time pass."""
        passed = now - self._now
        if self._in_flight:
            self._seconds_serving += passed
        elif self._changing:
            self._seconds_changing += passed
        self._now = now

    def arrive(self, arrival: Arrival) -> None:
        """Add a request; its wait counts from when it first came."""
        server = self._servers[arrival.model]
        if self._is_let_in_at_once(server):
            self._serve(arrival)
            return
        self._is_stirred = True
        queue = self._queues.setdefault(arrival.model, deque())
        queue.append(arrival)
        server.wait(len(queue), self._now)
        if self.first_come:
            self._order.append(arrival)

    def _is_let_in_at_once(self, server: PlayedServer) -> bool:
        """Whether a request to a model in use is let in at once and changes nothing for others."""
        is_in_use = server.in_flight and server.is_serving and server.name not in self._closed
        return bool(is_in_use) and not (self._is_stirred or self._order or self._alarm <= self._now)

    def _plan(self, after: float, model: str, life: int) -> None:
        heappush(self._agenda, (self._now + after, next(self._numbers), model, life))

    def _happen(self, model: str, life: int) -> None:
        """Handle the end of a request (life 0), or of a step of that life."""
        server = self._servers[model]
        if not life:
            server.finish(self._now)
            self._in_flight -= 1
            self._is_stirred |= not server.in_flight
            self._move(server)
        elif life == server.life:
            self._step(server, DONE[server.state])
            self._move(server)

    def _move(self, server: PlayedServer) -> None:
        while event := server.next_event():
            self._step(server, event)

    def _step(self, server: PlayedServer, event: Event) -> None:
        if server.state in HOLDS_MEMORY and self._now > server.since:
            self._spans.append(self._span(server))
        self._is_stirred = True
        self._changing -= server.state in DONE
        server.step(event, self._now)
        self._changing += server.state in DONE
        self._activations += event in (Event.START, Event.WAKE)
        self.moves += 1
        if (seconds := server.takes()) < inf:
            self._plan(seconds, server.name, server.life)
        self._note(server)

    def _note(self, server: PlayedServer) -> None:
        """Note whether it runs, and whether it sleeps."""
        if server.is_at_rest:
            self._active.discard(server.name)
        else:
            self._active.add(server.name)
        if self._ledger and server.state is State.ASLEEP:
            self._ledger.sleeps(server.snapshot())
        elif self._ledger:
            self._ledger.sleeps_no_more(server.name)

    def _settle(self) -> float:
        """Carry out decisions; return when to decide again, even if nothing happens before."""
        while self._queues:
            decision = self._decide()
            for name, wish in decision.wishes.items():
                self._servers[name].ask(wish, decision.gpus.get(name))
                self._move(self._servers[name])
            for name in decision.admit:
                while self._is_next(name):
                    self._serve(self._take(name))
            if not (decision.admit and self.first_come):  # otherwise the next request is first
                self._closed = decision.closed
                return decision.until
        self._closed = frozenset()
        return inf

    def _decide(self) -> Decision:
        patience = Patience(max_wait=0) if self.first_come else self.patience
        models, rivals = self._outlook(patience)
        if self._has_pins:
            self._refuse_blocked(models, rivals)
        demands = [self._demand(name) for name in self._next()]
        return decide(demands, models, rivals, patience, self._now)

    def _next(self) -> Iterable[str]:
        """Return who may be next; with `first_come`, only the first."""
        return [one.model for one in islice(self._order, 1)] if self.first_come else self._queues

    def _outlook(self, patience: Patience) -> tuple[Mapping[str, Snapshot], Rivals]:
        models = _Servers(self._servers, {*self._next(), *self._active})
        if not isinstance(self.room, Space):
            return models, ByRule(self.room, models)
        room = ByMemory(models, self.room, self._now, patience.max_wait, ledger=self._ledger)
        return models, room

    def _refuse_blocked(self, models: Mapping[str, Snapshot], rivals: Rivals) -> None:
        """Refuse requests for which nothing can make room, as the daemon does."""
        for name in list(self._next()):
            if not models[name].serving and self._is_blocked(name, models, rivals):
                while self._is_next(name):
                    self._take(name)
                    self._refused += 1

    def _is_blocked(self, name: str, models: Mapping[str, Snapshot], rivals: Rivals) -> bool:
        if isinstance(rivals, ByRule):
            return blocked_by_rule(name, models, rivals.make_room, self._now) is not None
        return isinstance(rivals, ByMemory) and blocked_by_memory(name, rivals) is not None

    def _demand(self, name: str) -> Demand:
        queue = self._queues[name]
        priority = self.durations[name].priority
        return Demand(model=name, since=queue[0].at, count=len(queue), priority=priority)

    def _is_next(self, name: str) -> bool:
        return name in self._queues and (not self.first_come or self._order[0].model == name)

    def _take(self, name: str) -> Arrival:
        queue = self._queues[name]
        arrival = queue.popleft()
        self._servers[name].wait(len(queue), self._now)
        if self.first_come:
            self._order.popleft()
        if not queue:
            del self._queues[name]
        return arrival

    def _serve(self, arrival: Arrival) -> None:
        self._servers[arrival.model].serve()
        self._in_flight += 1
        self._waits.setdefault(arrival.model, []).append(self._now - arrival.at)
        self._plan(arrival.serve, arrival.model, 0)
