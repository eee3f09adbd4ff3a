"""Whose turn it is: who is let in, who makes room, who starts or wakes. Pure.

Owns the order among those that wait, and how long loaded models may keep them waiting. `placement`
says who must make room for whom, and the scheduler acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import attrs

from supervisor.scheduling.decisions import NOTHING, Decision, Demand, Patience
from supervisor.scheduling.placement import ByRule, MakeRoom, Plan, Rivals
from supervisor.states.snapshot import UNKNOWN, Costs, Snapshot
from supervisor.states.table import (
    AT_REST,
    BEFORE_READY,
    HOLDS_MEMORY,
    IN_MOTION,
    ON_THE_WAY_OUT,
    State,
    Wish,
)

WORTH_OF_A_SWAP = 4
"""A model that became ready serves for this many times the cost of the swap that others press for,
or for the longest wait, whichever is less."""
WORTH_OF_A_GAP = 0.05
"""A model that has just become idle is kept for this part of that cost, if its users usually ask
again within it."""


def decide(
    demands: Iterable[Demand],
    models: Mapping[str, Snapshot],
    make_room: MakeRoom | Rivals,
    patience: Patience,
    now: float,
    usual: Costs = UNKNOWN,
) -> Decision:
    """Decide from the waiting demands and the models' states.

    A model that serves goes on serving, also for newcomers, until other requests have waited too
    long. A model in use is never asked to rest. A model that starts or wakes for a request is not
    interrupted. Models that can run together start or wake side by side. Of models that cannot, the
    one whose turn it is goes first.

    Args:
        demands: one for each model that is waited for.
        models: all models that are waited for, and all that claim memory.
        make_room: says who must make room for whom.
        patience: the operator's settings.
        now: on Trio's clock.
        usual: the usual costs of steps, for steps that were never measured of a model.
    """
    waiting = {demand.model: demand for demand in demands}
    if all(models[name].serving for name in waiting):
        return Decision(admit=frozenset(waiting)) if waiting else NOTHING
    rivals = ByRule(make_room, models) if callable(make_room) else make_room
    table = _Table(waiting, models, rivals, patience, now, usual)
    for demand in sorted(waiting.values(), key=table.rank):
        table.seat(demand)
    return table.decision()


@attrs.define(eq=False)
class _Table:
    """One decision in the making: each demand in turn takes what earlier demands have left.

    A demand whose turn has come claims its place. From then on, `plan` has the models that will run
    when all claims are fulfilled, and `leaving` those that must not come back before that.
    """

    waiting: Mapping[str, Demand]
    models: Mapping[str, Snapshot]
    rivals: Rivals
    patience: Patience
    now: float
    usual: Costs
    admit: set[str] = attrs.field(init=False)
    staying: set[str] = attrs.field(init=False)
    holding: set[str] = attrs.field(init=False)
    coming: set[str] = attrs.field(init=False)
    called_back: set[str] = attrs.field(init=False)
    plan: set[str] = attrs.field(init=False)
    claimed: set[str] = attrs.field(factory=set, init=False)
    leaving: set[str] = attrs.field(factory=set, init=False)
    wishes: dict[str, Wish] = attrs.field(factory=dict, init=False)
    closed: set[str] = attrs.field(factory=set, init=False)
    cut: set[str] = attrs.field(factory=set, init=False)
    gpus: dict[str, tuple[str, ...]] = attrs.field(factory=dict, init=False)
    causes: dict[str, str] = attrs.field(factory=dict, init=False)
    behind: dict[str, frozenset[str]] = attrs.field(factory=dict, init=False)
    closing: dict[str, float] = attrs.field(factory=dict, init=False)
    until: float = attrs.field(default=inf, init=False)
    least_rest: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.admit = {name for name in self.waiting if self.models[name].serving}
        self.staying = {name for name, model in self.models.items() if model.stays}
        self.holding = {name for name, model in self.models.items() if model.state in HOLDS_MEMORY}
        self.coming = {name for name, model in self.models.items() if self._is_coming(model)}
        self.called_back = {n for n in self.staying if self.models[n].state in ON_THE_WAY_OUT}
        self.plan = set(self.staying)
        costs = (model.cost_to_rest(self.usual) for model in self.models.values())
        self.least_rest = min((cost for cost in costs if cost), default=0.0)

    def decision(self) -> Decision:
        return Decision(
            admit=frozenset(self.admit),
            wishes=self.wishes,
            closed=frozenset(self.closed),
            cut=frozenset(self.cut),
            gpus=self.gpus,
            causes=self.causes,
            behind=self.behind,
            closing=self.closing,
            until=self.until,
        )

    def rank(self, demand: Demand) -> tuple[bool, float, bool, float, float, float]:
        """Order demands that have waited for long by age; before that, by priority and cost.

        Long means long enough to make others leave: a model that left must not be the first to come
        back. If API keys compete, the key with fewer turns goes before age and cost.
        """
        turn, since = demand.turn, demand.since
        if self._overdue_at(demand) <= self.now:
            return False, 0, False, turn, 0, since
        if self._pressing_at(demand) <= self.now:
            return True, -demand.priority, False, turn, 0, since
        cost = self.models[demand.model].cost_to_serve() / demand.count
        return True, -demand.priority, True, turn, cost, since

    def seat(self, demand: Demand) -> None:
        """Give a demand its turn, as far as earlier demands allow."""
        name = demand.model
        if name in self.admit or name in self.closed or name in self.leaving:
            return
        self._look_again(self._pressing_at(demand))
        self._look_again(self._overdue_at(demand))
        names = self._rivals(name)
        if names is None:
            return
        rivals = [self.models[rival] for rival in names]
        closing = max((self._closing_time(demand, rival) for rival in rivals), default=-inf)
        self.behind[name], self.closing[name] = names, closing
        self._look_again(closing)
        if closing <= self.now or self._overdue_at(demand) <= self.now:
            self._claim(name, names)
        if closing <= self.now:
            cleared = [self._clear(demand, rival, closing) for rival in rivals]  # all, then asked
            if all(cleared):
                self._call(name)

    def _rivals(self, name: str) -> frozenset[str] | None:
        """Return who must make room for a model; None if it cannot have its turn now."""
        called = (self.coming | self.called_back) & self.staying
        plan = Plan(
            running=frozenset(self.plan),
            called=frozenset(called),
            claimed=frozenset(self.claimed),
        )
        rivals = self.rivals.of(name, plan)
        if rivals is None and self.rivals.must_move(name, plan):
            self.wishes[name] = Wish.STOP
        return rivals

    def _claim(self, name: str, rivals: frozenset[str]) -> None:
        self.rivals.claim(name)
        self.claimed.add(name)
        self.leaving |= rivals
        self.plan = (self.plan - rivals) | {name}

    def _call(self, name: str) -> None:
        """Ask a model to serve as soon as the memory is free."""
        self.staying.add(name)
        holding = frozenset(self.holding | self.staying)
        in_the_way = self.rivals.is_in_the_way(name, holding)
        if not in_the_way and _can_be_called(self.models[name]):
            self.holding.add(name)
            self.wishes[name] = Wish.SERVE
            if gpus := self.rivals.gpus(name):
                self.gpus[name] = gpus

    def _clear(self, demand: Demand, rival: Snapshot, closing: float) -> bool:
        """Let a rival's requests end and then let it rest; return whether it has none."""
        if not self._is_fresh(rival):
            self.admit.discard(rival.model)
        if not (rival.in_flight or rival.model in self.admit):
            self.staying.discard(rival.model)
            must_end = self.rivals.must_end(demand.model, rival.model)
            self.wishes[rival.model] = Wish.STOP if must_end else _rest(rival)
            self.causes[rival.model] = demand.model
            return True
        self.closed.add(rival.model)
        if rival.drain_limit and rival.serving:
            self._bound_drain(demand, rival, closing + rival.drain_limit)
        return False

    def _bound_drain(self, demand: Demand, rival: Snapshot, end: float) -> None:
        self._look_again(end)
        if end <= self.now:
            self.cut.add(rival.model)
            self.wishes[rival.model] = Wish.STOP
            self.causes[rival.model] = demand.model

    def _closing_time(self, demand: Demand, rival: Snapshot) -> float:
        """Return when a rival may be closed for newcomers: minus infinity means at once."""
        if rival.model in self.waiting and rival.model in self.coming:
            return inf
        if not rival.serving:
            return -inf
        cost = self._cost_of_swap(demand, rival)
        behind_it = max(demand.since, rival.ready_since)
        closing = behind_it + min(self.patience.max_wait or inf, WORTH_OF_A_SWAP * cost)
        if not rival.in_flight and rival.model not in self.admit:
            # A user that sends one request after the other may be about to send the next.
            closing = min(closing, rival.idle_since + self._held_for(rival, cost))
        return max(closing, rival.ready_since + self.patience.min_active)

    def _held_for(self, rival: Snapshot, cost: float) -> float:
        """Return the seconds that an idle model is kept: 0, unless its users usually return sooner.

        Args:
            rival: the model.
            cost: the cost of the swap from it, in seconds.
        """
        hold = 0 if cost == inf else WORTH_OF_A_GAP * cost
        return hold if rival.habits.mostly_within(hold) else 0

    def _cost_of_swap(self, demand: Demand, rival: Snapshot) -> float:
        """Return the seconds from a rival to a wanted model; infinity if they are not known."""
        wanted = self.models[demand.model]
        to_serve, to_rest = wanted.cost_to_serve(self.usual), rival.cost_to_rest(self.usual)
        if not (to_serve and to_rest) or not self.patience.max_wait:
            return inf
        return to_serve + to_rest

    def _is_coming(self, model: Snapshot) -> bool:
        """Whether it starts or wakes for a request, or was called and has not moved yet."""
        moves = model.state in IN_MOTION and model.model in self.waiting
        return model.wish is Wish.SERVE and (moves or model.state in AT_REST)

    def _is_fresh(self, rival: Snapshot) -> bool:
        """Whether it became ready just now: its waiting requests get in, whatever else waits.

        As many get in as it has places; the rest wait for its next turn.
        """
        mine = self.waiting.get(rival.model)
        is_next = mine is not None and rival.model in self.admit and not rival.has_let_in
        return is_next and mine is not None and mine.since <= rival.ready_since

    def _overdue_at(self, demand: Demand) -> float:
        return demand.since + (self.patience.max_wait or inf)

    def _pressing_at(self, demand: Demand) -> float:
        """Return when a demand may have made the cheapest model leave."""
        to_serve = self.models[demand.model].cost_to_serve(self.usual)
        if not (to_serve and self.least_rest) or not self.patience.max_wait:
            return self._overdue_at(demand)
        return demand.since + min(
            self.patience.max_wait, WORTH_OF_A_SWAP * (to_serve + self.least_rest)
        )

    def _look_again(self, when: float) -> None:
        if when > self.now:
            self.until = min(self.until, when)


def _rest(rival: Snapshot) -> Wish:
    """Ask it to sleep if it can, else to stop; a start without waiting requests is cancelled."""
    if rival.can_sleep and rival.state not in BEFORE_READY | {State.STOPPED}:
        return Wish.STOP if rival.wish in (Wish.STOP, Wish.DRAIN) else Wish.SLEEP
    return Wish.STOP


def _can_be_called(model: Snapshot) -> bool:
    """Whether a wish to serve makes sense: not while it goes to a sleep that was asked for."""
    return model.state in AT_REST | {State.STOPPING, State.FALLING_ASLEEP} or (
        model.wish is Wish.STOP
    )
