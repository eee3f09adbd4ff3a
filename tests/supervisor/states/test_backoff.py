"""How soon a model that has failed may start again: the pure rules."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from supervisor.states.backoff import GOOD_RUN, NO_BACKOFF, Backoff


def test_a_backoff_doubles_up_to_its_cap() -> None:
    """The waits are 1, 2, 4 seconds and so on."""
    backoff, waits = NO_BACKOFF, []
    for _ in range(8):
        backoff = backoff.failed(now=100, served=0, most=60)
        waits.append(backoff.until - 100)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(0, 5000), st.floats(0, 1e6), st.integers(0, 1000))
def test_a_backoff_is_within_its_bounds(failures: int, now: float, most: int) -> None:
    """However often a model has failed, its wait is within the bounds."""
    wait = Backoff(failures, -inf).failed(now, 0, most).until - now
    assert 0 <= wait <= most + 1e-6


def test_a_good_run_lets_a_backoff_begin_anew() -> None:
    """A minute of service is a good run."""
    worn = Backoff(7, -inf)
    assert worn.failed(0, GOOD_RUN, 60) == Backoff(1, 1)
    assert worn.failed(0, GOOD_RUN - 1, 60).failures == 8
