"""Whose turn it is: the pure decision, by cases and by random play."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.placement import one_at_a_time
from supervisor.scheduler import Decision, decide
from supervisor.states import HOLDS_MEMORY, Event, Snapshot, State, Wish, step


def stand(
    model: str,
    state: State = State.STOPPED,
    wish: Wish = Wish.STOP,
    in_flight: int = 0,
    *,
    can_sleep: bool = False,
) -> Snapshot:
    return Snapshot(model=model, state=state, wish=wish, in_flight=in_flight, can_sleep=can_sleep)


def decided(waiting: str, *models: Snapshot) -> Decision:
    return decide(list(waiting), {model.model: model for model in models}, one_at_a_time)


def test_nothing_waits_nothing_happens() -> None:
    """An idle model is left alone."""
    assert decided("", stand("a", State.READY, Wish.SERVE)) == Decision()


def test_a_stopped_model_is_called_when_nobody_is_in_the_way() -> None:
    """Sleepers are in nobody's way."""
    sleeper = stand("b", State.ASLEEP, Wish.SLEEP, can_sleep=True)
    assert decided("a", stand("a"), sleeper).wishes == {"a": Wish.SERVE}


def test_all_who_wait_for_a_ready_model_get_in() -> None:
    """Together, also those who came later than somebody who waits for another."""
    decision = decided("aba", stand("a", State.READY, Wish.SERVE), stand("b"))
    assert decision == Decision(admit=frozenset("a"))


def test_an_idle_model_makes_room_by_sleeping_if_it_can() -> None:
    """The wanted one is not called before the room is there."""
    ready = stand("b", State.READY, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), ready).wishes == {"b": Wish.SLEEP}


def test_an_idle_model_without_sleep_makes_room_by_stopping() -> None:
    """There is no other way."""
    assert decided("a", stand("a"), stand("b", State.READY, Wish.SERVE)).wishes == {"b": Wish.STOP}


def test_a_model_in_use_is_left_alone() -> None:
    """A swap never cuts a request."""
    busy = stand("b", State.READY, Wish.SERVE, in_flight=1, can_sleep=True)
    assert decided("a", stand("a"), busy) == Decision()


def test_a_model_that_comes_up_for_somebody_is_let_come_up() -> None:
    """Even if a request for another is older than those that wait for it now."""
    for state in (State.STARTING, State.WAKING):
        coming = stand("b", state, Wish.SERVE, can_sleep=True)
        assert decided("ab", stand("a"), coming) == Decision()


def test_a_start_that_nobody_waits_for_is_broken_off() -> None:
    """A wake is let end, which takes a moment, and put back to sleep."""
    starting = stand("b", State.STARTING, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), starting).wishes == {"b": Wish.STOP}
    waking = stand("b", State.WAKING, Wish.SERVE, can_sleep=True)
    assert decided("a", stand("a"), waking).wishes == {"b": Wish.SLEEP}


def test_a_call_that_was_not_answered_yet_is_taken_back() -> None:
    """Two models must not be called at once because the first has not moved yet."""
    called = stand("b", State.STOPPED, Wish.SERVE)
    assert decided("a", stand("a"), called).wishes == {"b": Wish.STOP, "a": Wish.SERVE}


def test_a_model_on_its_way_out_is_waited_for() -> None:
    """The next one is called when the memory is free."""
    for state in (State.FALLING_ASLEEP, State.STOPPING):
        decision = decided("a", stand("a"), stand("b", state, Wish.SLEEP, can_sleep=True))
        assert "a" not in decision.wishes


def test_a_model_wanted_while_it_falls_asleep_is_called_back() -> None:
    """It is served after it woke."""
    falling = stand("a", State.FALLING_ASLEEP, Wish.SLEEP, can_sleep=True)
    assert decided("a", falling).wishes == {"a": Wish.SERVE}


def test_a_sleep_that_waits_for_requests_to_end_is_not_called_off_by_newcomers() -> None:
    """Or under steady load the model would never sleep."""
    draining = stand("a", State.READY, Wish.SLEEP, in_flight=1, can_sleep=True)
    assert decided("a", draining) == Decision()


def test_the_older_waiters_model_goes_first() -> None:
    """First come, first served, between models that cannot run together."""
    assert decided("ba", stand("a"), stand("b")).wishes == {"b": Wish.SERVE}


def test_a_failed_model_is_called_again_and_holds_its_place_from_then_on() -> None:
    """Before its task has moved, another model must not be called beside it."""
    assert decided("a", stand("a", State.FAILED)).wishes == {"a": Wish.SERVE}
    called = stand("a", State.FAILED, Wish.SERVE)
    assert decided("ab", called, stand("b")).wishes == {"a": Wish.SERVE}
    assert decided("b", called, stand("b")).wishes == {"a": Wish.STOP, "b": Wish.SERVE}


def test_a_model_that_was_told_to_end_serves_nobody() -> None:
    """Who wants it is served by its next process."""
    leaving = attrs.evolve(stand("a", State.READY), leaving=True)
    assert decided("a", leaving) == Decision(wishes={"a": Wish.SERVE})
    assert decided("a", attrs.evolve(leaving, wish=Wish.SERVE)) == Decision()


def test_models_that_do_not_conflict_come_up_side_by_side() -> None:
    """The same decision serves richer rules of placement."""
    models = {name: stand(name) for name in "abc"}
    decision = decide(list("abc"), models, lambda one, other: {one, other} == {"a", "b"})
    assert decision.wishes == {"a": Wish.SERVE, "c": Wish.SERVE}


MODELS = "abc"
WAYS: dict[State, dict[Wish | None, Event]] = {
    State.STOPPED: {Wish.SERVE: Event.START},
    State.FAILED: {Wish.SERVE: Event.START},
    State.STARTING: {Wish.STOP: Event.STOP, None: Event.BECAME_READY},
    State.READY: {Wish.SLEEP: Event.SLEEP, Wish.STOP: Event.STOP},
    State.FALLING_ASLEEP: {Wish.STOP: Event.STOP, None: Event.SLEPT},
    State.ASLEEP: {Wish.SERVE: Event.WAKE, Wish.STOP: Event.STOP},
    State.WAKING: {Wish.STOP: Event.STOP, None: Event.WOKE},
    State.STOPPING: {None: Event.ENDED},
}


class Play(RuleBasedStateMachine):
    """Requests come, leave and end; models move as their tasks would; and sometimes one dies."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.models = {name: stand(name, can_sleep=name != "c") for name in MODELS}
        self.dying: set[str] = set()

    def change(self, name: str, **changes: Any) -> None:
        self.models[name] = attrs.evolve(self.models[name], **changes)

    def settle(self) -> None:
        decision = decide(self.waiting, self.models, one_at_a_time)
        for name, wish in decision.wishes.items():
            leaving = self.models[name].leaving or wish is Wish.STOP
            self.change(name, wish=wish, leaving=leaving)
        for name in decision.admit:
            assert self.models[name].serving
            self.change(name, in_flight=self.models[name].in_flight + self.waiting.count(name))
        self.waiting = [name for name in self.waiting if name not in decision.admit]

    @rule(name=st.sampled_from(MODELS))
    def request(self, name: str) -> None:
        self.waiting.append(name)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def waiter_leaves(self, data: st.DataObject) -> None:
        self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def request_ends(self, name: str) -> None:
        if self.models[name].in_flight:
            self.change(name, in_flight=self.models[name].in_flight - 1)
            self.settle()

    @rule(name=st.sampled_from(MODELS))
    def operator_sleeps(self, name: str) -> None:
        model = self.models[name]
        if model.can_sleep and model.state in HOLDS_MEMORY - {State.STOPPING}:
            self.change(name, wish=Wish.SLEEP)

    @rule(name=st.sampled_from(MODELS))
    def operator_unloads(self, name: str) -> None:
        self.change(name, wish=Wish.STOP, leaving=True)
        self.waiting = [other for other in self.waiting if other != name]
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def model_moves(self, name: str) -> None:
        self.move(name)

    @rule(name=st.sampled_from(MODELS))
    def model_dies(self, name: str) -> None:
        if self.models[name].state in HOLDS_MEMORY - {State.STOPPING}:
            self.dying.add(name)
            self.change(name, state=State.STOPPING, in_flight=0)
            self.settle()

    def move(self, name: str) -> None:
        """Do what the model's task does next."""
        model = self.models[name]
        ways = WAYS[model.state]
        event = ways.get(model.wish) or ways.get(None)
        if model.leaving and Wish.STOP in ways:
            event = Event.STOP
        if event is None or (event is Event.SLEEP and model.in_flight):
            return
        if event is Event.START:
            self.change(name, leaving=False)
        if event is Event.ENDED and name in self.dying:
            self.dying.discard(name)
            if model.wish is Wish.SERVE:
                self.waiting = [other for other in self.waiting if other != name]
            self.change(name, wish=Wish.STOP)
            event = Event.GAVE_UP
        self.change(name, state=step(model.state, event))
        self.settle()

    @invariant()
    def one_model_at_most_holds_memory(self) -> None:
        assert sum(model.state in HOLDS_MEMORY for model in self.models.values()) <= 1

    def teardown(self) -> None:
        """When requests end and models move, everybody who waits is served or told."""
        for _ in range(200):
            for name in MODELS:
                while self.models[name].in_flight:
                    self.change(name, in_flight=self.models[name].in_flight - 1)
                    self.settle()
                self.move(name)
        assert not self.waiting


TestPlay = Play.TestCase
TestPlay.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
