"""How long waiting requests let other requests be served, and what ends that."""

from __future__ import annotations

import attrs
import pytest

from supervisor.scheduling.decisions import Decision, Demand, Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.scheduling.turns import decide
from supervisor.states.habits import Habits
from supervisor.states.snapshot import Costs, Snapshot, usual_costs
from supervisor.states.table import State, Wish

TEN = Patience(max_wait=10)
BUSY = Snapshot(model="a", state=State.READY, wish=Wish.SERVE, in_flight=1, can_sleep=True)
IDLE = attrs.evolve(BUSY, in_flight=0)
STOPPED = Snapshot(model="b")


def decided(
    *models: Snapshot, now: float, patience: Patience = TEN, **waiting: float | Demand
) -> Decision:
    """Decide; `waiting` says since when each model is waited for."""
    demands = [
        since if isinstance(since, Demand) else Demand(model=name, since=since)
        for name, since in waiting.items()
    ]
    standing = {model.model: model for model in models}
    return decide(demands, standing, one_at_a_time, patience, now)


def test_a_busy_model_lets_newcomers_in_until_another_has_waited_too_long() -> None:
    """The decision also says when to decide again."""
    before = decided(BUSY, STOPPED, b=100, a=105, now=109)
    assert before == Decision(admit=frozenset("a"), until=110)
    after = decided(BUSY, STOPPED, b=100, a=105, now=110)
    assert after.admit == after.wishes.keys() == frozenset()
    assert after.closed == {"a"}


def test_a_closed_model_makes_room_when_its_last_request_has_ended() -> None:
    """New requests at its door wait for its next turn."""
    decision = decided(IDLE, STOPPED, b=100, a=105, now=110)
    assert decision.wishes == {"a": Wish.SLEEP}
    assert not decision.admit


def test_a_closed_model_opens_again_when_the_others_have_left() -> None:
    """If the others disconnect, nothing must be undone."""
    assert decided(BUSY, STOPPED, a=105, now=110).admit == {"a"}


def test_without_a_longest_wait_a_busy_model_is_never_closed() -> None:
    """With `maxWait: 0` a busy model stays open, as in llama-swap."""
    decision = decided(BUSY, STOPPED, b=100, a=105, now=9999, patience=Patience(max_wait=0))
    assert decision == Decision(admit=frozenset("a"))


def test_what_came_up_has_its_time_too() -> None:
    """A wait behind a model does not count before that model was ready."""
    fresh = attrs.evolve(IDLE, ready_since=120)
    decision = decided(fresh, STOPPED, b=100, a=105, now=120)
    assert decision == Decision(admit=frozenset("a"), until=130)
    busy = attrs.evolve(fresh, in_flight=1)
    assert decided(busy, STOPPED, b=100, a=129, now=129).admit == {"a"}
    assert decided(busy, STOPPED, b=100, a=130, now=130).closed == {"a"}
    assert decided(fresh, STOPPED, b=100, now=121).wishes == {"a": Wish.SLEEP}


def test_who_waited_for_a_model_gets_in_when_it_comes_up() -> None:
    """It gets in however cheap the swap to another model is, so that its load was of use."""
    fresh = attrs.evolve(IDLE, ready_since=120, costs=Costs(sleep=1e-9))
    other = attrs.evolve(STOPPED, costs=Costs(start=1e-9))
    decision = decided(fresh, other, b=100, a=105, now=120.000001)
    assert decision.admit == decision.closed == {"a"}
    served = decided(attrs.evolve(fresh, in_flight=1), other, b=100, a=121, now=121)
    assert not served.admit


def test_a_model_that_came_up_is_kept_for_a_while() -> None:
    """It is kept whether idle or not, even if another has waited too long."""
    patience = Patience(max_wait=10, min_active=30)
    fresh = attrs.evolve(IDLE, ready_since=100)
    assert decided(fresh, STOPPED, b=90, now=110, patience=patience).until == 130
    busy = attrs.evolve(fresh, in_flight=1)
    assert decided(busy, STOPPED, b=90, a=110, now=110, patience=patience).admit == {"a"}
    assert decided(fresh, STOPPED, b=90, now=130, patience=patience).wishes == {"a": Wish.SLEEP}


def test_nobody_waits_long_for_a_cheap_swap() -> None:
    """The wait ends at four times the swap's cost, if that cost is fully known."""
    busy = attrs.evolve(BUSY, costs=Costs(sleep=0.2))
    asleep = Snapshot(
        model="b", state=State.ASLEEP, wish=Wish.SLEEP, can_sleep=True, costs=Costs(wake=0.2)
    )
    assert decided(busy, asleep, b=100, a=101, now=101).until == pytest.approx(101.6)
    assert decided(busy, asleep, b=100, a=101, now=101.7).closed == {"a"}
    slow = attrs.evolve(asleep, costs=Costs(wake=60))
    assert decided(busy, slow, b=100, a=101, now=101).until == 110


def test_a_model_that_has_just_become_idle_is_kept_for_a_moment() -> None:
    """Its client usually asks again within a twentieth of the swap's cost."""
    often = Habits((0.2, 30, 0.3))
    idle = attrs.evolve(IDLE, idle_since=105, costs=Costs(sleep=5), habits=often)
    other = attrs.evolve(STOPPED, costs=Costs(start=15))
    assert decided(idle, other, b=104, now=105).until == 106
    assert decided(idle, other, b=104, now=106).wishes == {"a": Wish.SLEEP}
    assert decided(idle, other, b=95.5, now=105).until == 105.5
    assert decided(idle, STOPPED, b=104, now=105).wishes == {"a": Wish.SLEEP}


@pytest.mark.parametrize("gaps", [(), (30.0,), (0.2, 30, 40)])
def test_a_model_whose_users_come_back_late_is_not_kept(gaps: tuple[float, ...]) -> None:
    """A model whose habits are unknown is not kept either: others would wait for nothing."""
    idle = attrs.evolve(IDLE, idle_since=105, costs=Costs(sleep=5), habits=Habits(gaps))
    other = attrs.evolve(STOPPED, costs=Costs(start=15))
    assert decided(idle, other, b=104, now=105).wishes == {"a": Wish.SLEEP}


def test_a_wake_that_was_never_measured_costs_what_others_cost() -> None:
    """Otherwise a model that wakes at once would wait for the longest wait behind a stream."""
    asleep = Snapshot(model="b", state=State.ASLEEP, wish=Wish.SLEEP, can_sleep=True)
    demand, models = [Demand(model="b", since=100)], {"a": BUSY, "b": asleep}
    usual = usual_costs([Costs(wake=0.2, sleep=0.1), Costs(wake=0.4), Costs(wake=9, sleep=0.1)])
    assert (usual.wake, usual.sleep, usual.start) == (0.4, 0.1, None)
    decision = decide(demand, models, one_at_a_time, TEN, 101, usual)
    assert decision.until == pytest.approx(100 + 4 * 0.5)
    unknown = decide(demand, models, one_at_a_time, TEN, 101)
    assert unknown.until == 110


def test_the_higher_priority_goes_first() -> None:
    """Once another has waited too long, priority no longer counts."""
    c = attrs.evolve(STOPPED, model="c")
    first = Demand(model="c", since=105, priority=1)
    assert decided(STOPPED, c, b=100, c=first, now=106).wishes == {"c": Wish.SERVE}
    assert decided(STOPPED, c, b=100, c=first, now=110).wishes == {"b": Wish.SERVE}


def test_what_comes_up_sooner_goes_first() -> None:
    """The time is divided by the number of waiting requests; an unmeasured model is tried."""
    slow = attrs.evolve(STOPPED, costs=Costs(start=60))
    quick = attrs.evolve(STOPPED, model="c", costs=Costs(start=2))
    assert decided(slow, quick, b=100, c=105, now=106).wishes == {"c": Wish.SERVE}
    many = Demand(model="b", since=100, count=31)
    assert decided(slow, quick, b=many, c=105, now=106).wishes == {"b": Wish.SERVE}


def test_requests_of_a_closed_model_are_cut_when_they_may_hold_up_no_longer() -> None:
    """If the operator has set drainTimeout, it limits how long they delay the others."""
    bounded = attrs.evolve(BUSY, drain_limit=30)
    assert decided(bounded, STOPPED, b=100, now=120).until == 140
    decision = decided(bounded, STOPPED, b=100, now=140)
    assert decision.cut == {"a"}
    assert decision.wishes == {"a": Wish.STOP}


def test_a_rest_for_good_is_not_turned_into_a_sleep() -> None:
    """A model that must be replaced is stopped, whichever model wants its place."""
    leaving = attrs.evolve(IDLE, wish=Wish.DRAIN)
    assert decided(leaving, STOPPED, b=100, now=101).wishes == {"a": Wish.STOP}
