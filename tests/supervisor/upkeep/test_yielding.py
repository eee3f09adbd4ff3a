"""Idle models sleep while other programs need the GPUs, and come back when that is over."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import parse
from supervisor import State, Supervisor
from supervisor.processes.census import TOKEN, name_of
from supervisor.processes.programs import programs_among, programs_now
from supervisor.room.devices import Reading
from supervisor.room.strangers import GIB, GpuUse, Strangers
from supervisor.states.pins import Pin
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import Wish
from supervisor.upkeep.yielding import Sight, is_over, who_yields
from tests.fakes import FakePrograms
from tests.supervisor.gpus import DEVICE, FakeGpu
from tests.supervisor.helpers import model, supervise

LogLines = list[dict[str, Any]]
READY: dict[str, Any] = {"state": State.READY, "wish": Wish.SERVE}
GAME = Sight(programs=("game",))


@pytest.mark.parametrize(
    ("keys", "yields"),
    [
        ({}, True),
        ({"in_flight": 1}, False),
        ({"waiting": 1}, False),
        ({"pin": Pin(holder="ci")}, False),
        ({"idle_since": 97.0}, False),
        ({"state": State.ASLEEP}, False),
        ({"state": State.STARTING}, False),
        ({"wish": Wish.SLEEP}, False),
        ({"leaving": True}, False),
    ],
)
def test_who_yields_is_awake_idle_and_not_pinned(keys: dict[str, Any], yields: bool) -> None:
    """A few idle seconds are required, so that a steady client does not wait each time."""
    one = Snapshot(model="a", **{**READY, **keys})
    assert who_yields([one], GAME, now=100.0) == (["a"] if yields else [])


def test_those_yield_to_strangers_that_are_on_their_gpu() -> None:
    """All models yield to a program, because nobody knows what it needs."""
    both = [Snapshot(model=name, **READY) for name in "ab"]
    taken = GpuUse(title="0", whole=10, strangers=2 * GIB, models={"b": 9})
    free = GpuUse(title="1", whole=4 * GIB, strangers=2 * GIB, models={"a": 9})
    sight = Sight(gpus=(free, taken))
    assert who_yields(both, sight, now=9.0) == ["b"]
    assert (sight.why, is_over(sight)) == ("other programs take the memory of 0 (yield)", False)
    assert who_yields(both, attrs.evolve(sight, programs=("x",)), now=9.0) == ["a", "b"]
    assert (Sight(gpus=(free,)).why, is_over(Sight(gpus=(free,)))) == ("", True)


@pytest.mark.parametrize(
    ("strangers", "least", "models", "was_theirs", "is_theirs"),
    [
        (4, 1, 20, False, False),  # there is room for all
        (5, 1, 20, False, True),
        (5, 1, 0, False, False),  # no model is there that could yield
        (5, 4.5, 20, False, False),  # a desktop that has hardly grown
        (5, 4.6, 20, True, False),
        (5, 4.3, 20, True, True),  # still more than half a GiB
        (4, 1, 20, True, True),  # a little room is not enough
        (3.5, 1, 20, True, False),
    ],
)
def test_a_gpu_is_taken_and_given_back_by_half_a_gib(
    strangers: float, least: float, models: float, was_theirs: bool, is_theirs: bool
) -> None:
    """The margin keeps the GPU from going back and forth."""
    held = {"a": int(models * GIB)} if models else {}
    use = GpuUse(
        title="0",
        whole=24 * GIB,
        strangers=int(strangers * GIB),
        least=int(least * GIB),
        models=held,
        was_theirs=was_theirs,
    )
    assert use.is_theirs == is_theirs


def beside(a: str, b: str = "serve b", rest: str = "") -> str:
    both = f"models: {{a: {model(a, cmdSleep='sleep 1', cmdWake='sleep 1')}, b: {model(b)}, "
    both += f"c: {model('serve c')}}}"
    return both + "\ngroups: {g: {swap: false, members: [a, b]}}\n" + rest


@attrs.define(eq=False)
class FakeProcesses:
    """The programs that run, and how often they were looked for."""

    running: set[str] = attrs.field(factory=set)
    looks: int = 0

    async def now(self, names: Collection[str]) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        return tuple(name for name in names if name in self.running)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> FakeProcesses:
    fakes = FakeProcesses()
    monkeypatch.setattr("supervisor.opening.programs_now", fakes.now)
    return fakes


def states(supervisor: Supervisor) -> str:
    letters = {State.READY: "R", State.ASLEEP: "A", State.STOPPED: "S"}
    return "".join(letters.get(one.state, "?") for one in supervisor.snapshots())


def said(lines: LogLines) -> list[str]:
    events = [str(line["event"]) for line in lines]
    return [one for one in events if "ielding" in one or "(yield" in one]


async def test_idle_models_rest_while_a_program_runs(
    autojump_clock: MockClock,
    programs: FakePrograms,
    processes: FakeProcesses,
    log_lines: LogLines,
) -> None:
    """Idle models sleep or stop; what was awake comes back, and the log says why."""
    async with supervise(beside("serve a", rest="yieldTo: [game]")) as supervisor:
        for name in "ab":
            await supervisor.load(name)
        await trio.sleep(60)
        assert states(supervisor) == "RRS"
        processes.running = {"game"}
        await trio.sleep(5)
        assert states(supervisor) == "ASS"
        await trio.sleep(600)
        processes.running = set()
        await trio.sleep(8)
        assert states(supervisor) == "ASS"
        await trio.sleep(10)
        assert states(supervisor) == "RRS"
    assert said(log_lines) == [
        "Yielding: 'game' runs (yieldTo). Idle models sleep until that is over",
        "<a> Sleeping model: 'game' runs (yieldTo)",
        "<b> Stopping model, as it cannot sleep: 'game' runs (yieldTo)",
        "Yielding is over (the reason was: 'game' runs (yieldTo)); starting or waking: a, b",
    ]


async def test_a_model_in_use_goes_on_and_rests_when_it_is_idle(
    autojump_clock: MockClock, programs: FakePrograms, processes: FakeProcesses
) -> None:
    """A model that a request wakes meanwhile rests again, too; a pinned model stays."""
    async with supervise(beside("serve a", rest="yieldTo: [game]")) as supervisor:
        await supervisor.load("a")
        await supervisor.keep_for("b", 1000, "ci")
        processes.running = {"game"}
        async with supervisor.lease("a"):
            await trio.sleep(100)
            assert states(supervisor) == "RRS"
        await trio.sleep(4)
        assert states(supervisor) == "RRS"
        await trio.sleep(6)
        assert states(supervisor) == "ARS"
        await supervisor.load("a")
        assert states(supervisor) == "RRS"
        await trio.sleep(10)
        assert states(supervisor) == "ARS"


async def test_nobody_leaves_for_a_model_that_comes_back(
    autojump_clock: MockClock,
    programs: FakePrograms,
    processes: FakeProcesses,
    log_lines: LogLines,
) -> None:
    """If another model was loaded meanwhile, the sleepers wait for a request."""
    async with supervise(beside("serve a", rest="yieldTo: [game]")) as supervisor:
        await supervisor.load("a")
        processes.running = {"game"}
        await trio.sleep(10)
        async with supervisor.lease("c"):
            processes.running = set()
            await trio.sleep(100)
            assert states(supervisor) == "ASR"
    assert said(log_lines)[-1].endswith(
        "'c' was loaded meanwhile, so these models wait for a request: a"
    )


async def test_what_an_operator_has_unloaded_meanwhile_stays_so(
    autojump_clock: MockClock, programs: FakePrograms, processes: FakeProcesses
) -> None:
    """A model that was not awake before does not start either."""
    async with supervise(beside("serve a", rest="yieldTo: [game]")) as supervisor:
        await supervisor.load("a")
        processes.running = {"game"}
        await trio.sleep(10)
        await supervisor.load("b")
        await supervisor.unload("a")
        await trio.sleep(10)
        assert states(supervisor) == "SSS"
        processes.running = set()
        await trio.sleep(100)
        assert states(supervisor) == "SSS"


async def test_nobody_looks_while_nothing_is_awake(
    autojump_clock: MockClock, programs: FakePrograms, processes: FakeProcesses
) -> None:
    """Without something to yield to, there is no look either; a reload may change that."""
    async with supervise(beside("serve a")) as supervisor:
        await supervisor.load("a")
        processes.running = {"game"}
        await trio.sleep(100)
        assert (processes.looks, states(supervisor)) == (0, "RSS")
        supervisor.reload(parse(beside("serve a", rest="yieldTo: [game]")).config)
        await trio.sleep(10)
        assert states(supervisor) == "ASS"
        processes.running = set()
        await trio.sleep(20)
        await supervisor.unload("a")
        await trio.sleep(5)
        looks = processes.looks
        await trio.sleep(1000)
        assert processes.looks == looks


@pytest.mark.parametrize("rule", ["groups", "memory"])
async def test_idle_models_sleep_while_strangers_take_their_memory(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, rule: str
) -> None:
    """Models yield under each rule; what a desktop held before does not count."""
    text = beside("serve a", rest="yield: true")
    if rule == "memory":
        text = text.replace("{cmd", "{memory: {gpu: 10}, cmd")
        before, _, _ = text.partition("groups")
        text = f"{before}routing: {{router: {{use: memory}}}}\nyield: true"
    async with supervise(text) as supervisor:
        gpu = FakeGpu(supervisor, {"a": 10, "b": 10}, strangers=2)
        gpu.install()
        for name in "ab":
            await supervisor.load(name)
        await trio.sleep(60)
        assert states(supervisor) == "RRS"
        gpu.strangers = 4
        await trio.sleep(10)
        assert states(supervisor) == "ASS"
        gpu.strangers = 12
        await trio.sleep(600)
        gpu.strangers = 2.2
        await trio.sleep(20)
        assert states(supervisor) == "RRS"
    assert said(log_lines)[0] == (
        "Yielding: other programs take the memory of GPU 0 (Fake) (yield). Idle models sleep until "
        "that is over"
    )


async def test_a_moment_is_not_enough(autojump_clock: MockClock, programs: FakePrograms) -> None:
    """What an ending process leaves for a moment moves no model, and a silent driver moves none."""
    async with supervise(beside("serve a", rest="yield: true")) as supervisor:
        gpu = FakeGpu(supervisor, {"a": 20}, strangers=1)
        gpu.install()
        await supervisor.load("a")
        await trio.sleep(20)
        gpu.strangers = 6
        looks = gpu.looks
        while gpu.looks == looks:
            await trio.sleep(0.1)
        gpu.strangers = 1
        await trio.sleep(20)
        gpu.strangers, gpu.is_silent = 6, True
        await trio.sleep(20)
        assert states(supervisor) == "RSS"


def test_the_least_that_strangers_held_is_theirs_for_good() -> None:
    """If strangers never held less, the least is what they held at the first look."""
    strangers = Strangers()
    least = []
    for used in (6, 3, 9):
        reading = Reading(device=DEVICE, used=used * GIB, held={})
        [use] = strangers.note([reading], {}, ())
        least.append(use.least // GIB)
    assert least == [6, 3, 3]


# Real processes.


@contextmanager
def running(*argv: str, env: dict[str, str] | None = None) -> Iterator[Popen[bytes]]:
    with Popen(argv, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def stub(tmp_path: Path) -> str:
    """Return a program that waits, under a name of its own."""
    return shutil.copy("/bin/sleep", f"{tmp_path}/a-game-with-a-long-name")


@pytest.mark.parametrize("name", ["a-game-with-a-long-name", "train-stub.py", "Deep Game.exe"])
async def test_programs_are_known_by_their_names(tmp_path: Path, stub: str, name: str) -> None:
    """The name may be the kernel's, which is cut, the command's, or the script's."""
    script = tmp_path / "train-stub.py"
    script.write_text("import time\ntime.sleep(60)")
    assert await programs_now([name]) == ()
    commands = {
        "train-stub.py": [sys.executable, str(script)],
        "Deep Game.exe": ["/bin/bash", "-c", r"exec -a 'Z:\games\Deep Game.exe' sleep 60"],
    }
    with running(*commands.get(name, [stub, "60"])), trio.fail_after(5):
        while await programs_now(["no-such-program", name]) != (name,):
            await trio.sleep(0.02)


async def test_what_the_daemon_has_started_is_no_program(stub: str) -> None:
    """A process with the token of a life does not count as a program."""
    with running(stub, "60", env={TOKEN: "owner.1"}) as process:
        with trio.fail_after(5):
            while name_of(process.pid) != Path(stub).name[:15]:
                await trio.sleep(0.02)
        assert programs_among([Path(stub).name]) == ()


@asynccontextmanager
async def awake(text: str) -> AsyncIterator[Supervisor]:
    async with supervise(text) as supervisor:
        await supervisor.load("a")
        yield supervisor


async def test_a_real_program_is_yielded_to(
    monkeypatch: pytest.MonkeyPatch, stub: str, tmp_path: Path
) -> None:
    """The model that slept for the program comes back when the program has ended."""
    for name, seconds in (("LOOKS_EVERY", 0.1), ("CALM_FOR", 0.3)):
        monkeypatch.setattr(f"supervisor.upkeep.yielding.{name}", seconds)
    monkeypatch.setattr("supervisor.upkeep.yielding.IDLE_FOR", 0.1)
    game = shutil.move(stub, f"{tmp_path}/gamestub")
    a = model("sleep 600", cmdSleep="true", cmdWake="true", checkEndpoint="none")
    async with awake(f"models: {{a: {a}}}\nyieldTo: [gamestub]") as supervisor:
        server = supervisor.servers["a"]
        with running(str(game), "60"), trio.fail_after(15):
            await server.reached(frozenset({State.ASLEEP}))
        with trio.fail_after(15):
            await server.reached(frozenset({State.READY}))
