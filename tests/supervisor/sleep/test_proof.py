"""Whether memory was freed, how the rest grows, and how far sleep is trusted: the pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configschema import Recipe, Verify
from configschema.keys.fields import Count, Percent
from supervisor.processes.memory import Held
from supervisor.sleep.proof import GIB, MIB, Amount, History, amounts, shortfall, size
from supervisor.sleep.trust import Trust

PLAIN = Recipe()
ON_HOST = Recipe(host_memory=True)


@pytest.mark.parametrize(
    ("verify", "recipe", "awake", "kinds"),
    [
        (Verify(), PLAIN, Held(9, 9), ["GPU"]),
        (Verify(), PLAIN, Held(9, None), []),
        (Verify(), PLAIN, Held(9, 0), []),
        (Verify(gpu_memory=False), PLAIN, Held(9, 9), []),
        (Verify(host_memory=True), PLAIN, Held(None, None), []),
        (Verify(host_memory=True), PLAIN, Held(9, 9), ["GPU", "host"]),
        (Verify(host_memory=True), PLAIN, Held(9, None), ["host"]),
        (Verify(), ON_HOST, Held(9, None), ["host"]),
        (Verify(), ON_HOST, Held(9, 9), ["GPU"]),
        (Verify(host_memory=False), ON_HOST, Held(9, None), []),
    ],
)
def test_which_memory_a_sleep_must_free(
    verify: Verify, recipe: Recipe, awake: Held, kinds: list[str]
) -> None:
    """GPU memory counts if the model holds some; host memory counts if a setting wants it."""
    found = amounts(verify, recipe, awake, Held(1, 1))
    assert [one.kind for one in found] == kinds


@pytest.mark.parametrize(
    ("verify", "asleep", "words"),
    [
        (Verify(), 5, None),
        (
            Verify(),
            6,
            "still holds 6.0 GiB of 10.0 GiB GPU memory; a sleep must free 50 % (verify.freed)",
        ),
        (Verify(freed=Percent(0)), 10, None),
        (Verify(freed=Percent(100)), 0, None),
        (Verify(freed=Percent(0)), 11, None),
        (Verify(max_residue=Count(2048)), 2, None),
        (Verify(max_residue=Count(2048)), 3, "a sleep may leave 2048 MiB (verify.maxResidue)"),
    ],
)
def test_how_much_may_be_left(verify: Verify, asleep: int, words: str | None) -> None:
    """A sleep may leave a share of what was held, and no more than a size if one is given."""
    found = shortfall(verify, Amount("GPU", 10 * GIB, asleep * GIB))
    assert (found is None) if words is None else (found and words in found)


def test_memory_that_cannot_be_measured_any_more_is_not_taken_for_freed() -> None:
    """This is so for GPU memory and for host memory."""
    verify = Verify(host_memory=True)
    for one in amounts(verify, PLAIN, Held(9 * GIB, 9 * GIB), Held()):
        assert (one.left, one.freed) == (9 * GIB, 0)
        said = shortfall(verify, one)
        assert said
        assert "cannot be measured any more" in said


@given(st.lists(st.integers(0, 1 << 40), min_size=1))
def test_a_history_knows_the_first_the_least_and_the_trend(left: list[int]) -> None:
    """A history covers all sleeps of a process."""
    history = History()
    for amount in left:
        history = history.then(amount)
    assert history.cycles == len(left)
    assert history.growth == left[-1] - min(left) >= 0
    assert history.trend * max(1, len(left) - 1) == pytest.approx(left[-1] - left[0])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MiB"),
        (3 * MIB, "3.0 MiB"),
        (340 * MIB, "340 MiB"),
        (46 * GIB + GIB // 2, "46.5 GiB"),
        (-2 * GIB, "-2.0 GiB"),
    ],
)
def test_bytes_are_written_as_operators_read_them(count: int, text: str) -> None:
    """A size has one decimal place if that says something."""
    assert size(count) == text


def test_trust_ends_after_failures_in_a_row() -> None:
    """A proved sleep resets the count, but does not bring lost trust back."""
    trust = Trust().failed(3).failed(3).proved().failed(3).failed(3)
    assert trust == Trust(2)
    lost = trust.failed(3)
    assert lost == Trust(3, holds=False)
    assert not lost.proved().holds


def test_without_a_limit_trust_does_not_end() -> None:
    """A limit of 0 means no limit."""
    trust = Trust()
    for _ in range(100):
        trust = trust.failed(0)
    assert trust.holds
