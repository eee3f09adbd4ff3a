"""The table of states: what may follow what, and that nothing else may."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.states.table import (
    AT_REST,
    HAS_PROCESS,
    HOLDS_MEMORY,
    TRANSITIONS,
    Event,
    IllegalStep,
    State,
    step,
)

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in TRANSITIONS])
def test_steps_of_the_table_are_taken(state: State, event: Event) -> None:
    """A step leads where the table says."""
    assert step(state, event) is TRANSITIONS[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_other_steps_are_refused_by_name(state: State, event: Event) -> None:
    """A step that the table does not have is a fault of the program, and the error names it."""
    with pytest.raises(IllegalStep, match=f"{event.name} cannot happen in state {state.name}"):
        step(state, event)


@pytest.mark.parametrize(
    "state", [state for state in State if state in HAS_PROCESS - {State.STOPPING}]
)
def test_every_state_with_a_process_can_be_stopped(state: State) -> None:
    """A stop is always allowed."""
    assert step(state, Event.STOP) is State.STOPPING


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_any_walk_keeps_what_the_sets_promise(events: list[Event]) -> None:
    """A model sleeps only after it was ready, and starts only without a process."""
    state = State.STOPPED
    for event in events:
        before = state
        try:
            state = step(state, event)
        except IllegalStep:
            continue
        if state is State.STARTING:
            assert before not in HAS_PROCESS - {State.QUEUED}
        if state is State.FALLING_ASLEEP:
            assert before is State.READY
        if before in HAS_PROCESS and state not in HAS_PROCESS:
            assert before is State.STOPPING
        if before in AT_REST and state in HOLDS_MEMORY:
            assert event in (
                Event.QUEUE,
                Event.START,
                Event.WAKE,
                Event.STOP,
                Event.ADOPTED_READY,
                Event.ADOPTED_ASLEEP,
            )


def test_every_state_can_be_reached_and_left() -> None:
    """No state is out of reach, and none is a dead end."""
    assert {state for _, state in TRANSITIONS.items()} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)
