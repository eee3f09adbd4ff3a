"""When a model will be wanted again, judged by how long it was idle the last few times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.states.habits import NO_HABITS, REMEMBERED, SOON, Habits

gaps = st.lists(st.floats(0, 1e6), max_size=20)


def test_the_last_gaps_are_remembered() -> None:
    """The newest gap is the last one."""
    habits = NO_HABITS
    for gap in range(REMEMBERED + 3):
        habits = habits.then(gap)
    assert habits.gaps == tuple(range(3, REMEMBERED + 3))


@pytest.mark.parametrize(
    ("known", "within", "expected"),
    [((), 10, False), ((1,), 10, True), ((1, 20), 10, True), ((1, 20, 20), 10, False)],
)
def test_mostly_is_at_least_half(known: tuple[float, ...], within: float, expected: bool) -> None:
    """If no gaps are known, the answer is no."""
    assert Habits(known).mostly_within(within) is expected


def test_a_model_that_is_used_again_and_again_is_wanted_soon() -> None:
    """It is wanted sooner than a model used once an hour, or one that nothing is known of."""
    often, seldom = Habits((5.0,) * 4), Habits((3600.0,) * 4)
    assert often.likely_soon(1) > NO_HABITS.likely_soon(1) > seldom.likely_soon(1)


def test_what_is_idle_for_longer_than_ever_is_wanted_later_and_later() -> None:
    """The model is assumed to stay idle for as long again."""
    habits = Habits((5.0,))
    likely = [habits.likely_soon(idle) for idle in (6, 60, 600, 6000)]
    assert likely == sorted(likely, reverse=True)
    assert likely[0] == pytest.approx(SOON / (SOON + SOON + 6))


def test_a_gap_that_is_nearly_over_makes_it_likelier() -> None:
    """Only the rest of the gap is left to wait."""
    hourly = Habits((3600.0,))
    assert hourly.likely_soon(3590) > hourly.likely_soon(10)


@given(known=gaps, idle=st.floats(0, 1e9))
def test_a_likelihood_is_one(known: list[float], idle: float) -> None:
    """A likelihood is more than 0 and at most 1."""
    assert 0 < Habits(tuple(known)).likely_soon(idle) <= 1
