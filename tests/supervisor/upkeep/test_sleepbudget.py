"""How many models may sleep, and which are stopped when there are too many."""

from __future__ import annotations

import os

import psutil
import pytest
import trio
from trio.testing import MockClock

from configschema import parse
from supervisor import State, Supervisor, open_supervisor
from supervisor.processes.memory import _bytes_of, held_by
from supervisor.sleep.contact import Contact
from supervisor.states.snapshot import Costs
from supervisor.upkeep.sleepbudget import GIB, Budget, Sleeper, too_many
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import model

SLOW, QUICK = Costs(start=100, wake=1), Costs(start=2, wake=1)


@pytest.mark.parametrize(
    ("sleepers", "budget", "stopped"),
    [
        ([], Budget(sleepers=1), []),
        ([Sleeper(model="a", idle=9)], Budget(), []),
        ([Sleeper(model="a", idle=9), Sleeper(model="b", idle=5)], Budget(sleepers=1), ["a"]),
        (
            [Sleeper(model="a", idle=9, costs=SLOW), Sleeper(model="b", idle=5, costs=QUICK)],
            Budget(sleepers=1),
            ["b"],
        ),
        (
            [Sleeper(model="a", idle=9, memory=3), Sleeper(model="b", idle=9, memory=2)],
            Budget(memory=4),
            ["a"],
        ),
        (
            [Sleeper(model=name, idle=idle, memory=3) for idle, name in enumerate("abc")],
            Budget(sleepers=9, memory=4),
            ["c", "b"],
        ),
        ([Sleeper(model="a", idle=0, memory=5)], Budget(memory=4), ["a"]),
    ],
)
def test_the_least_valuable_is_stopped_first(
    sleepers: list[Sleeper], budget: Budget, stopped: list[str]
) -> None:
    """Little time saved, long disuse and much memory make a sleeper less valuable."""
    assert too_many(sleepers, budget) == stopped


def configuration(**settings: int) -> str:
    models = ", ".join(
        f"{name}: {model(f'serve {name}', cmdSleep='sleep 1', cmdWake='sleep 1')}"
        for name in "abcd"
    )
    rest = "".join(f"\n{name}: {value}" for name, value in settings.items())
    return f"models: {{{models}}}{rest}"


def states(supervisor: Supervisor) -> dict[str, State]:
    return {one.model: one.state for one in supervisor.snapshots()}


async def use_in_turn(supervisor: Supervisor, names: str) -> None:
    for name in names:
        async with supervisor.lease(name):
            await trio.sleep(10)
    await trio.sleep(5)


async def test_at_most_so_many_models_sleep(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """If more fall asleep, the model that was used longest ago is stopped."""
    config = parse(configuration(maxSleepers=2)).config
    async with open_supervisor(config, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        await use_in_turn(supervisor, "abcd")
        assert states(supervisor) == {
            "a": State.STOPPED,
            "b": State.ASLEEP,
            "c": State.ASLEEP,
            "d": State.READY,
        }


async def test_sleepers_hold_no_more_memory_than_they_may(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The memory of each sleeper is measured when a model has fallen asleep."""
    config = parse(configuration(maxSleepMemory=4)).config

    async def measure(pid: int) -> int:
        return 3 * GIB if programs.running[pid].argv == ("serve", "b") else GIB

    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), measure=measure
    ) as supervisor:
        await use_in_turn(supervisor, "abcd")
        assert states(supervisor) == {
            "a": State.ASLEEP,
            "b": State.STOPPED,
            "c": State.ASLEEP,
            "d": State.READY,
        }


async def test_a_sleeper_that_is_wanted_meanwhile_is_left_alone(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Measuring takes time, and a model that was called by then is no sleeper any more."""
    config = parse(configuration(maxSleepMemory=1)).config

    async def measure(_: int) -> int:
        await trio.sleep(1)
        return 3 * GIB

    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), measure=measure
    ) as supervisor:
        async with supervisor.lease("a"):
            pid = supervisor.servers["a"].snapshot().pid
        await supervisor.sleep("a")
        async with supervisor.lease("a"):
            await trio.sleep(10)
            assert supervisor.servers["a"].snapshot().pid == pid


async def test_the_memory_of_a_process_and_all_it_has_started_is_measured() -> None:
    """On the real machine, two processes hold 64 MiB each, and a third holds nothing."""
    holder = "import sys; data = bytearray(64 << 20); print('up', flush=True); sys.stdin.read()"
    script = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {holder!r}], stdin=subprocess.PIPE)
{holder}
"""
    process = await trio.lowlevel.open_process(
        ["python3", "-c", script], stdin=-1, stdout=-1, env=os.environ
    )
    assert process.stdout
    assert process.stdin
    said = b""
    while said.count(b"up") < 2:
        said += await process.stdout.receive_some()
    assert 128 << 20 < await held_by(process.pid) < 220 << 20
    await process.stdin.aclose()
    await process.wait()
    assert await held_by(process.pid) == 0


def test_a_process_that_cannot_be_measured_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has ended or may not be read counts as nothing; the rest still counts."""

    class Gone(psutil.Process):
        def memory_full_info(self) -> None:  # type: ignore[override]
            raise psutil.AccessDenied

        def memory_info(self) -> None:  # type: ignore[override]
            raise psutil.NoSuchProcess(self.pid)

    assert _bytes_of(Gone(os.getpid())) == 0
