"""What is known of a model's memory: guessed, seen, and learned from what failed."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from supervisor.states.footprint import MIB, UNMEASURED, Footprint

GIB = 1 << 30
GUESSED = Footprint(gpus=(10 * GIB,), host=2 * GIB)
LEARNED = Footprint(gpus=(8 * GIB,), host=GIB, lives=1)


def test_nothing_is_known_before_the_end_of_the_first_life() -> None:
    """The model may still grow; at the end of its life, the most that was seen counts."""
    seen = UNMEASURED.held_awake([5, 0], 3).held_awake([7, 1], 2).held_awake([6, 0], 2)
    assert not seen.is_known
    known = seen.rested()
    assert known == Footprint(gpus=(7, 1), host=3, lives=1)
    assert known.is_known


def test_a_guess_holds_until_the_first_life_is_over() -> None:
    """A larger measurement counts at once, a smaller one only at the end."""
    less = GUESSED.held_awake([5 * GIB], GIB)
    assert (less.gpus, less.host) == (GUESSED.gpus, GUESSED.host)
    assert less.rested() == Footprint(gpus=(5 * GIB,), host=GIB, lives=1)
    more = GUESSED.held_awake([12 * GIB], 3 * GIB)
    assert (more.gpus, more.host) == ((12 * GIB,), 3 * GIB)


def test_a_guess_of_one_device_is_none_of_the_other() -> None:
    """What was never guessed is learned in the first life."""
    half = Footprint(host=2 * GIB)
    seen = half.held_awake([5 * GIB], GIB)
    assert seen.gpus is None
    assert seen.rested() == Footprint(gpus=(5 * GIB,), host=GIB, lives=1)


def test_what_was_too_much_is_forgotten_by_and_by() -> None:
    """A model that takes less today may take it all tomorrow, but this is not assumed forever."""
    assert LEARNED.gpus is not None
    known = LEARNED.held_awake([6 * GIB], 2 * GIB)
    assert known.gpus == LEARNED.gpus  # while it is awake
    after = known.rested()
    assert after.gpus == tuple(int(one * 0.9) for one in LEARNED.gpus)
    assert (after.host, after.lives) == (2 * GIB, 2)
    for _ in range(10):
        after = after.held_awake([6 * GIB], 2 * GIB).rested()
    assert after.gpus == (6 * GIB,)


def test_what_could_not_be_seen_in_the_first_life_is_learned_in_a_later_one() -> None:
    """The driver may have been missing, which does not mean that the model needs no memory."""
    without = UNMEASURED.held_awake(None, 3).rested()
    assert without == Footprint(host=3, lives=1)
    assert without.held_awake([7], 3).rested() == Footprint(gpus=(7,), host=3, lives=2)
    host_later = Footprint(gpus=(7,), lives=1).held_awake([7], 4)
    assert host_later.rested().host == 4


def test_a_model_that_was_seen_to_use_no_gpu_uses_none_until_it_does() -> None:
    """To use no GPU is knowledge, unlike a figure that nobody could see."""
    cpu = UNMEASURED.held_awake([0], 3).rested()
    assert cpu.gpus == ()
    assert cpu.held_awake([5], 3).gpus == (5,)
    assert UNMEASURED.held_awake(None, 3).rested().gpus is None


def test_the_end_of_a_life_in_which_nothing_was_seen_teaches_nothing() -> None:
    """A life in which nothing was seen does not count."""
    for known in (UNMEASURED, GUESSED, LEARNED):
        assert known.rested() == known


def test_the_newest_sleep_counts() -> None:
    """What a sleep leaves may become less again; the growth is never below zero."""
    known = LEARNED.held_asleep([3 * GIB, 0], GIB, growth=5)
    assert (known.gpus_asleep, known.host_asleep, known.growth) == ((3 * GIB,), GIB, 5)
    later = known.held_asleep([GIB], None, growth=-7)
    assert (later.gpus_asleep, later.host_asleep, later.growth) == ((GIB,), None, 0)
    assert known.held_asleep(None, None).gpus_asleep is None


def test_gpus_keep_their_order() -> None:
    """The first GPU may hold less than the second, or nothing."""
    assert UNMEASURED.held_awake([0, 9], 0).rested().gpus == (0, 9)
    assert UNMEASURED.held_awake([9, 0], 0).rested().gpus == (9,)
    assert LEARNED.held_awake([0, 4], 0).gpus == (8 * GIB, 4)


def test_too_little_memory_raises_what_is_known_and_asks_for_all() -> None:
    """What is known rises by a quarter, at least 256 MiB; without a GPU, the host's rises."""
    raised = LEARNED.was_too_little()
    assert (raised.gpus, raised.host) == ((10 * GIB,), GIB)
    assert raised.is_short
    assert not raised.is_known
    small = Footprint(gpus=(100 * MIB,), lives=1).was_too_little()
    assert small.gpus == (356 * MIB,)
    cpu = Footprint(gpus=(), host=8 * GIB, lives=1).was_too_little()
    assert (cpu.gpus, cpu.host) == ((), 10 * GIB)
    assert UNMEASURED.was_too_little() == Footprint(is_short=True)


def test_a_start_that_was_good_is_short_no_more_and_keeps_what_was_raised() -> None:
    """Other models may run beside it again."""
    good = LEARNED.was_too_little().was_enough()
    assert (good.is_known, good.gpus) == (True, (10 * GIB,))


amounts = st.lists(st.integers(0, 1 << 40), max_size=3)


@given(
    looks=st.lists(
        st.tuples(st.one_of(st.none(), amounts), st.one_of(st.none(), st.integers(0, 9)))
    )
)
def test_no_look_makes_less_of_what_was_learned_and_no_life_much_less(
    looks: list[tuple[list[int] | None, int | None]],
) -> None:
    """This is so in whatever order the looks come, awake and at rest."""
    known = attrs.evolve(LEARNED, host=3)
    for gpus, host in looks:
        after = known.held_awake(gpus, host)
        for one, part in ((after, 1.0), (after.rested(), 0.9)):
            assert one.gpus is not None
            assert one.host is not None
            assert known.gpus is not None
            assert len(one.gpus) >= len(known.gpus)
            pairs = zip(one.gpus, known.gpus, strict=False)
            assert all(new >= int(old * part) for new, old in pairs)
            assert one.host >= int((known.host or 0) * part)
        known = after.rested()
