"""Whose turn it is: the pure decision, case by case."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from supervisor.scheduling.decisions import Decision, Demand, Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.scheduling.turns import decide
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State, Wish


def stand(
    model: str,
    state: State = State.STOPPED,
    wish: Wish = Wish.STOP,
    in_flight: int = 0,
    *,
    can_sleep: bool = False,
) -> Snapshot:
    return Snapshot(model=model, state=state, wish=wish, in_flight=in_flight, can_sleep=can_sleep)


WITHOUT_END = Patience(max_wait=0)


def demands(waiting: Iterable[str]) -> list[Demand]:
    """Return the demands of waiting requests; the first came first."""
    names = list(waiting)
    return [
        Demand(model=name, since=names.index(name) / 1000, count=names.count(name))
        for name in dict.fromkeys(names)
    ]


def decided(waiting: str, *models: Snapshot) -> Decision:
    standing = {model.model: model for model in models}
    return decide(demands(waiting), standing, one_at_a_time, WITHOUT_END, now=1)


def test_nothing_waits_nothing_happens() -> None:
    """An idle model is left alone."""
    assert decided("", stand("a", State.READY, Wish.SERVE)) == Decision()


def test_a_stopped_model_is_called_when_nobody_is_in_the_way() -> None:
    """Sleepers are in no model's way."""
    sleeper = stand("b", State.ASLEEP, Wish.SLEEP, can_sleep=True)
    assert decided("a", stand("a"), sleeper).wishes == {"a": Wish.SERVE}


def test_all_who_wait_for_a_ready_model_get_in() -> None:
    """They get in together, even those that came after a request for another model."""
    decision = decided("aba", stand("a", State.READY, Wish.SERVE), stand("b"))
    assert decision == Decision(admit=frozenset("a"))


def test_an_idle_model_makes_room_by_sleeping_if_it_can() -> None:
    """The wanted model is not called before the room is there."""
    ready = stand("b", State.READY, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), ready).wishes == {"b": Wish.SLEEP}


def test_an_idle_model_without_sleep_makes_room_by_stopping() -> None:
    """Such a model has no other way."""
    assert decided("a", stand("a"), stand("b", State.READY, Wish.SERVE)).wishes == {"b": Wish.STOP}


def test_a_model_in_use_is_left_alone() -> None:
    """A swap never cuts a request."""
    busy = stand("b", State.READY, Wish.SERVE, in_flight=1, can_sleep=True)
    assert decided("a", stand("a"), busy) == Decision()


def test_a_model_that_comes_up_for_somebody_is_let_come_up() -> None:
    """A request for another model does not turn it back, even if that request is older."""
    for state in (State.STARTING, State.WAKING):
        coming = stand("b", state, Wish.SERVE, can_sleep=True)
        assert decided("ab", stand("a"), coming) == Decision()


def test_a_start_that_nobody_waits_for_is_broken_off() -> None:
    """A wake takes only a moment, so it is allowed to end, and the model is put back to sleep."""
    starting = stand("b", State.STARTING, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), starting).wishes == {"b": Wish.STOP}
    waking = stand("b", State.WAKING, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), waking).wishes == {"b": Wish.SLEEP}


def test_a_call_that_was_not_answered_yet_is_taken_back() -> None:
    """Otherwise two models would be called at once, because the first has not moved yet."""
    called = stand("b", State.STOPPED, Wish.SERVE)
    assert decided("a", stand("a"), called).wishes == {"b": Wish.STOP, "a": Wish.SERVE}


def test_a_model_on_its_way_out_is_waited_for() -> None:
    """The next model is called when the memory is free."""
    for state in (State.FALLING_ASLEEP, State.STOPPING):
        decision = decided("a", stand("a"), stand("b", state, Wish.SLEEP, can_sleep=True))
        assert "a" not in decision.wishes


def test_a_model_wanted_while_it_falls_asleep_is_called_back() -> None:
    """The request is served after the model has woken."""
    falling = stand("a", State.FALLING_ASLEEP, Wish.SLEEP, can_sleep=True)
    assert decided("a", falling).wishes == {"a": Wish.SERVE}


def test_a_sleep_that_waits_for_requests_to_end_is_not_called_off_by_newcomers() -> None:
    """Otherwise the model would never sleep under steady load."""
    draining = stand("a", State.READY, Wish.SLEEP, in_flight=1, can_sleep=True)
    assert decided("a", draining) == Decision()


def test_the_older_waiters_model_goes_first() -> None:
    """First come, first served, between models that cannot run together."""
    assert decided("ba", stand("a"), stand("b")).wishes == {"b": Wish.SERVE}


def test_a_failed_model_is_called_again_and_holds_its_place_from_then_on() -> None:
    """Before its task has moved, no other model may be called beside it."""
    assert decided("a", stand("a", State.FAILED)).wishes == {"a": Wish.SERVE}
    called = stand("a", State.FAILED, Wish.SERVE)
    assert decided("ab", called, stand("b")).wishes == {"a": Wish.SERVE}
    assert decided("b", called, stand("b")).wishes == {"a": Wish.STOP, "b": Wish.SERVE}


def test_a_model_that_was_told_to_end_serves_nobody() -> None:
    """Its next process serves the requests for it."""
    leaving = attrs.evolve(stand("a", State.READY), leaving=True)
    assert decided("a", leaving) == Decision(wishes={"a": Wish.SERVE})
    assert decided("a", attrs.evolve(leaving, wish=Wish.SERVE)) == Decision()


def test_models_that_do_not_conflict_come_up_side_by_side() -> None:
    """The same decision works with richer rules of placement."""
    models = {name: stand(name) for name in "abc"}
    apart = frozenset("ab")
    decision = decide(
        demands("abc"),
        models,
        lambda wanted, running: apart & running - {wanted} if wanted in apart else frozenset(),
        WITHOUT_END,
        now=1,
    )
    assert decision.wishes == {"a": Wish.SERVE, "c": Wish.SERVE}


def test_a_model_called_back_does_not_come_up_beside_who_must_leave_for_it() -> None:
    """Groups may let the other in, but not in this order: the call is taken back."""
    falling = stand("a", State.FALLING_ASLEEP, Wish.SERVE, can_sleep=True)
    decision = decide(
        [Demand(model="b", since=0, priority=1), Demand(model="a", since=0)],
        {"a": falling, "b": stand("b")},
        lambda wanted, running: running & {"b"} if wanted == "a" else frozenset(),
        WITHOUT_END,
        now=1,
    )
    assert decision.wishes["a"] is Wish.SLEEP
