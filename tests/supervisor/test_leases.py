"""Leases that are asked for: a model stays for a time, and then is like any other."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from configschema import parse
from supervisor import ModelFailed, NoRoom, State, Supervisor, Unloaded
from supervisor.model.leases import MOST_LEASES, LeaseStep, NamedLease
from supervisor.states.refusals import TooManyLeases
from tests.fakes import FakePrograms
from tests.supervisor.gpus import FakeGpu
from tests.supervisor.helpers import model, supervise, two

LogLines = list[dict[str, Any]]
A = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
B = model("serve b")
BOTH = two(A, B)


def state(supervisor: Supervisor, name: str = "a") -> State:
    return supervisor.servers[name].snapshot().state


def said(lines: LogLines) -> list[str]:
    return [str(line["event"]) for line in lines if "Lease" in str(line["event"])]


@pytest.mark.parametrize("rule", ["", "\nrouting: {router: {use: memory}}"])
async def test_nobody_takes_the_room_until_a_lease_ends(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, rule: str
) -> None:
    """Until then a request is told who has it and for how long; then the first gets the room."""
    a = A.replace("{cmd", "{memory: {gpu: 16}, cmd")
    b = B.replace("{cmd", "{memory: {gpu: 16}, cmd")
    async with supervise(two(a, b) + rule) as supervisor:
        FakeGpu(supervisor, {"a": 16, "b": 16}).install()
        lease, is_new = await supervisor.keep_for("a", 600, "ci", "nightly tests")
        assert (is_new, state(supervisor), round(lease.left)) == (True, State.READY, 600)
        await trio.sleep(100)
        with pytest.raises(NoRoom) as caught:
            await supervisor.load("b")
        assert "'a' (lease of ci: nightly tests, for 500s more)" in str(caught.value)
        assert round(caught.value.wait) == 500
        await trio.sleep(501)
        assert list(supervisor.leases) == []
        await supervisor.load("b")
        assert state(supervisor) is State.ASLEEP
    assert said(log_lines) == [
        "<a> Lease of ci begins: the model stays for 600s",
        "<a> Lease of ci has ended; others may take its room",
    ]


async def test_a_lease_counts_from_when_the_model_serves(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """If the client disconnects before that, nothing is pinned."""
    slow = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 40")
    async with supervise(two(slow, B)) as supervisor:
        await supervisor.load("a")
        await supervisor.sleep("a")
        with trio.move_on_after(10):
            await supervisor.keep_for("a", 600, "ci")
        assert list(supervisor.leases) == []
        await trio.sleep(40)
        await supervisor.sleep("a")
        began = trio.current_time()
        lease, _ = await supervisor.keep_for("a", 600, "ci")
        assert round(lease.until - began) == 640


async def test_idle_times_count_from_the_end_of_a_lease(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Both sleepTtl and ttl begin then, even if an operator put the model to sleep."""
    keys = {"cmdSleep": "sleep 1", "cmdWake": "sleep 1", "sleepTtl": 60, "ttl": 600}
    async with supervise(two(model("serve a", **keys), B)) as supervisor:
        await supervisor.keep_for("a", 1000, "ci")
        await trio.sleep(1059)
        assert state(supervisor) is State.READY
        await trio.sleep(3)
        assert state(supervisor) is State.ASLEEP
        await supervisor.keep_for("a", 1000, "ci")
        await supervisor.sleep("a")
        await trio.sleep(1500)
        assert state(supervisor) is State.ASLEEP
        await trio.sleep(102)
        assert state(supervisor) is State.STOPPED


async def test_the_lease_that_ends_last_counts(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The log names the end of each lease."""
    async with supervise(BOTH) as supervisor:
        await supervisor.keep_for("a", 100, "ci")
        await supervisor.keep_for("a", 300, "me")
        await trio.sleep(200)
        with pytest.raises(NoRoom, match="lease of me, for 100s more"):
            await supervisor.load("b")
        await trio.sleep(101)
        await supervisor.load("b")
    ends = [line for line in said(log_lines) if "ended" in line]
    assert ends == [
        "<a> Lease of ci has ended; the model is still kept",
        "<a> Lease of me has ended; others may take its room",
    ]


async def test_a_lease_is_renewed_by_its_holder(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The lease keeps its id, even while as many requests use the model as may."""
    busy = A.replace("{cmd", "{concurrencyLimit: 1, cmd")
    async with supervise(two(busy, B)) as supervisor:
        first, _ = await supervisor.keep_for("a", 100, "ci", "tests")
        async with supervisor.lease("a"):
            await trio.sleep(50)
            second, is_new = await supervisor.keep_for("a", 100, "ci")
        assert (second.id, second.reason, is_new) == (first.id, "tests", False)
        await trio.sleep(60)
        assert [round(lease.left) for lease in supervisor.leases] == [40]


async def test_who_waits_is_let_in_when_a_lease_is_given_back(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """An unload ends a lease, too; a sleep does not, and the next request wakes the model."""
    steps: list[tuple[LeaseStep, str]] = []

    def note(step: LeaseStep, lease: NamedLease) -> None:
        steps.append((step, lease.holder))

    async with supervise(BOTH) as supervisor:
        supervisor.leases.on_step = note
        lease, _ = await supervisor.keep_for("a", 1000, "ci")
        await supervisor.sleep("a")
        await supervisor.load("b")
        await supervisor.load("a")
        with pytest.raises(NoRoom):
            await supervisor.load("b")
        assert supervisor.leases.give_back(lease.id) == lease
        assert supervisor.leases.give_back(lease.id) is None
        await supervisor.load("b")
        await supervisor.keep_for("a", 1000, "me")
        await supervisor.unload("a")
        assert list(supervisor.leases) == []
        await supervisor.load("b")
    assert steps == [
        *((LeaseStep.GRANTED, "ci"), (LeaseStep.ENDED, "ci")),
        *((LeaseStep.GRANTED, "me"), (LeaseStep.ENDED, "me")),
    ]


async def test_a_model_that_a_reload_removes_has_no_leases(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """A model that stays keeps its leases."""
    async with supervise(BOTH + "\ngroups: {g: {swap: false, members: [a, b]}}") as supervisor:
        await supervisor.keep_for("a", 1000, "ci")
        await supervisor.keep_for("b", 1000, "ci")
        supervisor.reload(parse(f"models: {{b: {B}}}").config)
        assert [lease.model for lease in supervisor.leases] == ["b"]
    text = "<a> Lease of ci has ended: the model was removed; others may take its room"
    assert text in said(log_lines)


async def test_what_cannot_be_brought_up_is_not_pinned(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The error is the same as that of a load."""
    programs.broken.add("serve b")
    async with supervise(BOTH) as supervisor, trio.open_nursery() as nursery:
        with pytest.raises(ModelFailed):
            await supervisor.keep_for("b", 600, "ci")

        async def be_unloaded() -> None:
            with pytest.raises(Unloaded):
                await supervisor.keep_for("a", 600, "ci")

        await supervisor.pause()
        nursery.start_soon(be_unloaded)
        await trio.sleep(1)
        await supervisor.unload("a")
        await trio.sleep(1)
        assert list(supervisor.leases) == []


async def test_there_are_only_so_many_leases(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """No model is started for a lease that cannot be given; an existing lease can be renewed."""
    async with supervise(BOTH) as supervisor:
        for number in range(MOST_LEASES):
            await supervisor.keep_for("a", 1000, f"{number}")
        with pytest.raises(TooManyLeases):
            await supervisor.keep_for("b", 1000, "ci")
        assert state(supervisor, "b") is State.STOPPED
        _, is_new = await supervisor.keep_for("a", 1000, "7")
        assert not is_new
