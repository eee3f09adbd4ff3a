"""Models for which nothing can make room: who holds the room, and what the request is told."""

from __future__ import annotations

from math import inf

import attrs

from supervisor.room.space import Space
from supervisor.scheduling.blocked import Blocked, blocked_by_memory, blocked_by_rule
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.placement import one_at_a_time
from supervisor.states.pins import KEPT, Pin
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State, Wish
from tests.supervisor.scheduling.rooms import asleep, by_name, known, machine, ready, standing

ONE, TWO = machine(24), machine(24, 24)
LEASED = Pin(holder="ci", until=1090.0, reason="evaluation")


def blocked(space: Space, *models: Snapshot, name: str = "b") -> Blocked | None:
    return blocked_by_memory(name, ByMemory(by_name(models), space, 1000))


def why(space: Space, *models: Snapshot, name: str = "b") -> str:
    found = blocked(space, *models, name=name)
    assert found is not None
    return found.why


def test_nobody_is_blocked_by_those_who_may_be_moved() -> None:
    """Others may be in use or not, asleep or awake, known or unknown."""
    used = ready("a", known(20), in_flight=3)
    assert blocked(ONE, used, standing("b", known(20))) is None
    assert blocked(ONE, ready("a"), standing("b")) is None
    assert blocked(ONE, asleep("a", known(20, rest=20)), standing("b", known(20))) is None


def test_who_is_pinned_blocks_and_is_named() -> None:
    """The text has the size that the pinned model holds, and why it stays."""
    kept = ready("a", known(10), pin=KEPT)
    said = why(ONE, kept, standing("b", known(20)))
    assert said == "it needs 20.0 GiB, and of 24.0 GiB on g0, 'a' (keep: true) holds 10.0 GiB"
    assert blocked(ONE, kept, standing("b", known(14))) is None
    assert blocked(TWO, kept, standing("b", known(20))) is None


def test_a_lease_that_ends_says_when() -> None:
    """The lease that ends first counts."""
    leased = ready("a", known(10), pin=LEASED)
    later = ready("c", known(10), pin=attrs.evolve(LEASED, until=2000.0))
    found = blocked(ONE, leased, later, standing("b", known(20)))
    assert found is not None
    assert (found.until, found.by_strangers) == (1090.0, False)
    assert "'a' (lease of ci: evaluation, for 90s more) holds 10.0 GiB" in found.why


def test_what_is_not_known_gets_what_pinned_ones_leave() -> None:
    """Pinned models never leave, so the model would wait forever for a device to itself."""
    for kept in (ready("a", known(1), pin=KEPT), asleep("a", known(10, rest=1), pin=KEPT)):
        assert blocked(ONE, kept, standing("b")) is None


def test_who_is_pinned_and_not_measured_yet_has_all_of_its_device() -> None:
    """This ends with the first look at the pinned model."""
    said = why(ONE, ready("a", pin=KEPT), standing("b", known(3)))
    assert said == (
        "it needs 3.0 GiB, and of 24.0 GiB on g0, 'a' (keep: true) has all of it until it is "
        "measured"
    )


def test_strangers_block_and_may_pass() -> None:
    """The text names each device; without the strangers there would be room."""
    taken = machine(24, 24, others={"g0": 20, "g1": 21})
    found = blocked(taken, standing("b", known(10)))
    assert found is not None
    assert (found.by_strangers, found.until) == (True, inf)
    assert found.why == (
        "it needs 10.0 GiB, and of 24.0 GiB on g0, 20.0 GiB are held by other programs; "
        "of 24.0 GiB on g1, 21.0 GiB are held by other programs"
    )


def test_strangers_beside_pinned_ones_that_block_alone_are_no_reason_to_wait() -> None:
    """If the strangers ended, there would still be no room."""
    taken = machine(24, others={"g0": 2})
    found = blocked(taken, ready("a", known(10), pin=KEPT), standing("b", known(20)))
    assert found is not None
    assert not found.by_strangers


def test_a_sleeper_that_can_start_on_another_gpu_is_not_blocked() -> None:
    """A model that stays holds its own GPU."""
    sleeper = asleep("b", known(20, rest=1))
    kept = ready("a", known(10), pin=KEPT)
    assert blocked(TWO, sleeper, kept) is None
    assert blocked(ONE, sleeper, kept) is not None


def test_a_sleeper_on_a_gpu_that_is_gone_is_not_blocked() -> None:
    """The sleeper starts on a GPU that is there."""
    assert blocked(ONE, asleep("b", known(20, rest=1), on="g7")) is None


def test_what_could_not_be_ended_blocks_and_is_named() -> None:
    """It holds its memory until somebody ends it, so no request waits forever for that."""
    stuck = standing("a", known(10), State.STOPPING, "g0", left="pid 7", leaving=True)
    said = why(ONE, stuck, standing("b", known(20)))
    assert said == (
        "it needs 20.0 GiB, and of 24.0 GiB on g0, 'a' (pid 7 could not be ended) holds 10.0 GiB"
    )
    assert blocked(ONE, stuck, standing("b", known(14))) is None
    ending = attrs.evolve(stuck, left="")
    assert blocked(ONE, ending, standing("b", known(20))) is None


def test_a_model_for_the_host_is_told_of_the_host() -> None:
    """The model uses no GPU; the machine may have one or none."""
    host = machine(host=16)
    kept = ready("a", known(host=10), on="", pin=KEPT)
    said = why(host, kept, standing("b", known(host=8)))
    assert said == (
        "it needs 8.0 GiB, and of 16.0 GiB on the host, 'a' (keep: true) holds 10.0 GiB"
    )
    both = machine(24, host=16)
    assert "on the host" in why(both, kept, standing("b", known(host=8)))


def test_a_rule_is_blocked_by_pinned_ones_alone() -> None:
    """Groups and a matrix heed pinned models, too, but do not look at memory."""
    kept = ready("a", pin=KEPT)
    models = by_name([kept, standing("b")])
    found = blocked_by_rule("b", models, one_at_a_time, 1000)
    assert found is not None
    assert found.why == "it cannot run beside models that are kept: 'a' (keep: true)"
    free = by_name([ready("a"), standing("b")])
    assert blocked_by_rule("b", free, one_at_a_time, 1000) is None
    stopped = by_name([standing("a", pin=KEPT), standing("b")])
    assert blocked_by_rule("b", stopped, one_at_a_time, 1000) is None
    leaving = ready("a", pin=KEPT, wish=Wish.SERVE)
    going = by_name([attrs.evolve(leaving, state=State.STOPPING, wish=Wish.STOP), standing("b")])
    assert blocked_by_rule("b", going, one_at_a_time, 1000) is None
