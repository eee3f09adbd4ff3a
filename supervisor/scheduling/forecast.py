"""When a model will be ready, as far as is known: a pure function of learned times and the queue.

Owns the estimate, and how sure it is. Who goes first is decided by `turns`; how long the steps of a
model take is learned in `states/snapshot`.
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
"""Of a step's learned time: what is left of one that takes longer than that."""
LEAST_TOLD = 0.02
"""The same of a step whose server tells how much of it is done."""
ENOUGH_DONE = 0.05  # of a step; less of it says little about the rest

_Step = Literal["start", "stop", "sleep", "wake"]
NOTHING: Mapping[str, float] = {}


@attrs.frozen
class Forecast:
    """When a model will be ready.

    Attributes:
        seconds: until then; 0 where it serves.
        measured: the number of measurements that the least known part stands on; 0 where it stands
            on none, since the model serves, or its server tells how far it has come.
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
    """Return when a model will be ready for who asks now; None where a part was never measured.

    The parts are: the steps of who must leave, the swaps of those who go first and cannot run
    beside it, and its own way up. For how long requests use a model is not known, so what others
    still use counts as if it were idle: the estimate is the least that it takes. Who comes later
    and has priority is not foreseen either.

    Args:
        model: whose; it is one of the snapshots.
        snapshots: how it stands, all that are waited for, and all that hold memory.
        order: the models that are waited for, the first first. One that is not among them would
            come last.
        make_room: who must leave for whom.
        now: on Trio's clock.
        held_back: seconds that models which have failed may not start yet.
        shares: how much of its present step is done, of models whose server tells it; 0 to 1.
        closed: models that serve and let nobody in any more, since it is others' turn.
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
    """Return who goes first: who comes up already, then who came earlier."""
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
        models: how they stand when that much time has passed.
        passed: the time from now until then.
    """

    models: dict[str, Snapshot]
    make_room: MakeRoom
    now: float
    held_back: Mapping[str, float]
    shares: Mapping[str, float]
    passed: Forecast = NOW

    def bring_up(self, name: str) -> None:
        """Let all that takes pass until a model serves."""
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
        """Return what is left of the way up of one that is on it."""
        if one.state is State.QUEUED:
            left = one.queue.until - self.now - self.passed.seconds
            return Forecast(max(0.0, left)).then(_whole(one, "start"))
        return self._left(one, "start" if one.state is State.STARTING else "wake")

    def _pass(self, time: Forecast) -> None:
        self.passed = self.passed.then(time)

    def _rivals(self, name: str) -> list[Snapshot]:
        """Return who must leave for a model."""
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
        if rival.state is State.ASLEEP:  # what its sleep leaves is in the way
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
        """Return what is left of a step that is under way, of which something is always left."""
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
    """Whether it comes up: the room for it is made."""
    return one.state in IN_MOTION and one.wish is Wish.SERVE and not one.leaving


def _will_sleep(one: Snapshot) -> bool:
    """Whether it sleeps, or will if it is to make room now; else it stops, or has no process."""
    if one.state in ENDED | BEFORE_READY | {State.STOPPING} or one.leaving:
        return False
    if one.state in (State.FALLING_ASLEEP, State.ASLEEP):
        return True
    return one.can_sleep and one.wish in (Wish.SERVE, Wish.SLEEP)
