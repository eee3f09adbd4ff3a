"""When a model will be ready, as far as is known: a pure function of learned times and the queue.

Owns the estimate, and how sure it is. `turns` decides who goes first. `states/snapshot` learns how
long the steps of a model take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Literal

import attrs

from supervisor.scheduling.placement import MakeRoom
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import (
    AT_REST,
    BEFORE_READY,
    ENDED,
    HOLDS_MEMORY,
    IN_MOTION,
    State,
    Wish,
)

LEAST_LEFT = 0.1
"""Share of a step's learned time that is assumed to be left if the step takes longer than that."""
LEAST_TOLD = 0.02
"""The same for a step whose server tells how much of it is done."""
ENOUGH_DONE = 0.05  # share of a step; less says little about the rest

_Step = Literal["start", "stop", "sleep", "wake"]
NOTHING: Mapping[str, float] = {}


@attrs.frozen
class Forecast:
    """When a model will be ready.

    Attributes:
        seconds: the time until then; 0 if the model serves.
        measured: the number of measurements behind the least known part; 0 without measurements,
        since the model serves, or its server tells how much is done.
    """

    seconds: float
    measured: int = 0

    def then(self, other: Forecast) -> Forecast:
        """Return when both are done, one after the other."""
        return Forecast(self.seconds + other.seconds, self._least(other))

    def beside(self, other: Forecast) -> Forecast:
        """Return when both are done, side by side."""
        return Forecast(max(self.seconds, other.seconds), self._least(other))

    def _least(self, other: Forecast) -> int:
        return min(filter(None, (self.measured, other.measured)), default=0)


NOW = Forecast(0.0)
UNKNOWN = Forecast(inf)


def forecast(
    model: str,
    snapshots: Mapping[str, Snapshot],
    order: Sequence[str],
    make_room: MakeRoom,
    now: float,
    *,
    held_back: Mapping[str, float] = NOTHING,
    shares: Mapping[str, float] = NOTHING,
    closed: frozenset[str] = frozenset(),
) -> Forecast | None:
    """Return when a model will be ready for a new request; None if a part was never measured.

    The parts are: the steps of the models that make room, the swaps of models that go first and
    cannot run beside it, and its own start or wake. How long requests use a model is not known, so
    models in use count as if they were idle: the estimate is the least time. Later requests with
    priority are not foreseen either.

    Args:
        model: the model; it is one of the snapshots.
        snapshots: the model, all models that are waited for, and all that hold memory.
        order: the models that are waited for, in order. A model outside this list would come last.
        make_room: says who must make room for whom.
        now: on Trio's clock.
        held_back: seconds that failed models may not start yet.
        shares: how much of its present step is done, 0 to 1, for models whose server tells.
        closed: models that serve but accept no newcomers, since it is others' turn.
    """
    models = {
        name: attrs.evolve(one, wish=Wish.SLEEP) if name in closed else one
        for name, one in snapshots.items()
    }
    course = _Course(models, make_room, now, held_back, shares)
    for other in _before(models[model], models, order):
        if not held_back.get(other) and _are_rivals(model, other, make_room):
            course.bring_up(other)
    course.bring_up(model)
    return course.passed if course.passed.seconds < inf else None


def _before(one: Snapshot, snapshots: Mapping[str, Snapshot], order: Sequence[str]) -> list[str]:
    """Return the models that go first: those starting or waking, then those requested earlier."""
    if one.serving or _is_coming(one):
        return []
    model = one.model
    coming = [name for name in order if name != model and _is_coming(snapshots[name])]
    earlier = order[: order.index(model)] if model in order else order
    return [*coming, *(name for name in earlier if name not in coming)]


def _are_rivals(one: str, other: str, make_room: MakeRoom) -> bool:
    """Whether two models cannot run side by side."""
    return bool(make_room(one, frozenset({other})) or make_room(other, frozenset({one})))


@attrs.define(eq=False)
class _Course:
    """What will happen, one model after the other.

    Attributes:
        models: their states after the time that has passed.
        passed: the time from now until then.
    """

    models: dict[str, Snapshot]
    make_room: MakeRoom
    now: float
    held_back: Mapping[str, float]
    shares: Mapping[str, float]
    passed: Forecast = NOW

    def bring_up(self, name: str) -> None:
        """Add the time until a model serves."""
        one = self.models[name]
        if one.serving:
            return
        if _is_coming(one):
            self._pass(self._in_motion(one))
        else:
            self._pass(Forecast(max(0.0, self.held_back.get(name, 0.0) - self.passed.seconds)))
            self._make_way(one, self._rivals(name))
            self._pass(_whole(one, "wake" if _will_sleep(one) else "start"))
        self.models[name] = attrs.evolve(
            one, state=State.READY, wish=Wish.SERVE, leaving=False, in_flight=0
        )

    def _in_motion(self, one: Snapshot) -> Forecast:
        """Return the rest of a start or wake that is under way."""
        if one.state is State.QUEUED:
            left = one.queue.until - self.now - self.passed.seconds
            return Forecast(max(0.0, left)).then(_whole(one, "start"))
        return self._left(one, "start" if one.state is State.STARTING else "wake")

    def _pass(self, time: Forecast) -> None:
        self.passed = self.passed.then(time)

    def _rivals(self, name: str) -> list[Snapshot]:
        """Return the models that must make room for a model."""
        holding = {one.model for one in self.models.values() if one.state in HOLDS_MEMORY}
        rivals = self.make_room(name, frozenset(holding - {name}))
        return [one for one in self.models.values() if one.model in rivals]

    def _make_way(self, own: Snapshot, rivals: Sequence[Snapshot]) -> None:
        """Let all of them go to rest, side by side."""
        longest = self._way_out(own)
        for one in rivals:
            longest = longest.beside(self._until_it_may_leave(one).then(self._made_to_leave(one)))
            sleeps = _will_sleep(one) and one.state is not State.ASLEEP
            rest = State.ASLEEP if sleeps else State.STOPPED
            self.models[one.model] = attrs.evolve(one, state=rest, wish=Wish.STOP, leaving=False)
        self._pass(longest)

    def _until_it_may_leave(self, rival: Snapshot) -> Forecast:
        if rival.pin is None or not rival.stays:
            return NOW
        return Forecast(max(0.0, rival.pin.until - self.now - self.passed.seconds))

    def _made_to_leave(self, rival: Snapshot) -> Forecast:
        if rival.state is State.ASLEEP:  # what its sleep has left is in the way
            return _whole(rival, "stop")
        return self._way_out(rival)

    def _way_out(self, one: Snapshot) -> Forecast:
        if one.left:  # what could not be ended may stay for ever
            return UNKNOWN
        if one.state in AT_REST:
            return NOW
        if one.state is State.STOPPING:
            return self._left(one, "stop")
        if not _will_sleep(one):
            return _whole(one, "stop")
        if one.state is State.FALLING_ASLEEP:
            return self._left(one, "sleep")
        awake = self._left(one, "wake") if one.state is State.WAKING else NOW
        return awake.then(_whole(one, "sleep"))

    def _left(self, one: Snapshot, step: _Step) -> Forecast:
        """Return the rest of a step that is under way; some of it is always left."""
        whole, least = _whole(one, step), LEAST_LEFT
        ran, share = max(0.0, self.now - one.since), self.shares.get(one.model, 0.0)
        if share > ENOUGH_DONE and ran:
            whole, least = Forecast(ran / share), LEAST_TOLD
        if whole.seconds == inf:
            return whole
        left = whole.seconds - ran - self.passed.seconds
        return attrs.evolve(whole, seconds=max(left, least * whole.seconds))


def _whole(one: Snapshot, step: _Step) -> Forecast:
    known: float | None = getattr(one.costs, step)
    return UNKNOWN if known is None else Forecast(known, max(1, one.costs.counts.get(step, 0)))


def _is_coming(one: Snapshot) -> bool:
    """Whether it starts or wakes: the room for it is made."""
    return one.state in IN_MOTION and one.wish is Wish.SERVE and not one.leaving


def _will_sleep(one: Snapshot) -> bool:
    """Whether it sleeps, or would sleep to make room; otherwise it stops, or has no process."""
    if one.state in ENDED | BEFORE_READY | {State.STOPPING} or one.leaving:
        return False
    if one.state in (State.FALLING_ASLEEP, State.ASLEEP):
        return True
    return one.can_sleep and one.wish in (Wish.SERVE, Wish.SLEEP)
