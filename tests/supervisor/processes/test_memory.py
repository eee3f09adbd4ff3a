"""What a process tree holds: host memory from /proc, GPU memory from a fake NVML."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor.processes.child import open_child
from supervisor.processes.memory import Held, held_by, tree_of, weigh
from supervisor.room import drm
from supervisor.room.devices import look_at_all
from supervisor.room.drm import Drm
from tests.supervisor.room.gpus import GIB, FakeNvml, Process, made_up_nvml, open_gpu, plug_in

MIB = 1 << 20
HOLDS = "import mmap, time; m = mmap.mmap(-1, 64 << 20); m.write(b'x' * len(m)); print(1, flush=1)"


@pytest.fixture(autouse=True)
def no_other_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine that runs the tests may have AMD's or Intel's GPUs."""
    monkeypatch.setattr(drm, "SYSTEM", Drm(tmp_path / "proc", tmp_path / "sys"))


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    with made_up_nvml(monkeypatch, fake):
        yield fake


def held_on_gpus(*pids: int) -> int | None:
    return look_at_all(pids).held_by(pids)


def test_the_memory_of_a_tree_is_summed_over_all_gpus(nvml: FakeNvml) -> None:
    """The memory of strangers does not count."""
    nvml.compute = [[Process(1, 10), Process(2, 20), Process(9, 1000)], [Process(2, 5)]]
    assert held_on_gpus(1, 2, 3) == 35


def test_a_process_that_computes_and_draws_counts_once(nvml: FakeNvml) -> None:
    """The process is on both lists of a GPU, with all that it holds."""
    nvml.compute[0] = nvml.graphics[0] = [Process(1, 10)]
    assert held_on_gpus(1) == 10


def test_a_process_with_parts_of_a_gpu_holds_their_sum(nvml: FakeNvml) -> None:
    """The process is on the list once for each part."""
    nvml.compute[0] = [Process(1, 30), Process(1, 40)]
    assert held_on_gpus(1) == 70


def test_a_gpu_that_only_computes_is_counted(nvml: FakeNvml) -> None:
    """Such a GPU has no list of processes that draw."""
    nvml.compute[0], nvml.draws = [Process(1, 10)], False
    assert held_on_gpus(1) == 10


def test_nothing_is_a_number_too(nvml: FakeNvml) -> None:
    """A model that holds no GPU memory is known to hold none."""
    assert held_on_gpus(1) == 0


def test_what_a_driver_does_not_count_is_not_known(nvml: FakeNvml) -> None:
    """The driver names the process, but no size."""
    nvml.compute[0] = [Process(1, None)]
    assert held_on_gpus(1) is None
    assert held_on_gpus(2) == 0


def test_a_gpu_that_is_lost_is_not_known(nvml: FakeNvml) -> None:
    """When the GPU is back, the memory is known again."""
    assert held_on_gpus(1) == 0
    nvml.broken = True
    assert held_on_gpus(1) is None
    nvml.broken = False
    assert held_on_gpus(1) == 0


def test_without_a_driver_nothing_is_known(nvml: FakeNvml) -> None:
    """The library alone is not enough."""
    nvml.broken = True
    assert held_on_gpus(1) is None
    nvml.broken = False  # the driver is loaded a little later
    assert held_on_gpus(1) == 0


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `gpu` there is no library, and nothing is known."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert held_on_gpus(1) is None


@pytest.mark.parametrize("far", [False, True], ids=["child", "left its parent"])
async def test_a_tree_is_a_process_with_all_it_has_started(far: bool) -> None:
    """This includes what its parent has left behind in the session."""
    child = f'{sys.executable} -c "{HOLDS}; time.sleep(60)"'
    script = f"({child} &) ; sleep 60" if far else f"{child}; sleep 1"
    holds = trio.Event()
    async with open_child(
        ["sh", "-c", script], env=dict(os.environ), on_output=lambda _: holds.set(), grace=0
    ) as process:
        await holds.wait()
        assert len(tree_of(process.pid)) == 2 + (1 if far else 0)
        assert ((await weigh(process.pid, True)).host or 0) > 64 * MIB


async def test_gpu_memory_counts_for_a_process_with_all_it_has_started(nvml: FakeNvml) -> None:
    """The memory of a stranger does not count."""
    argv = ["sh", "-c", "(sleep 60 &) ; setsid sleep 60 & sleep 60 & echo; wait"]
    said = trio.Event()
    async with open_child(
        argv, env=dict(os.environ), on_output=lambda _: said.set(), grace=0
    ) as process:
        await said.wait()
        tree = tree_of(process.pid)
        with trio.fail_after(2):
            while len(tree) < 4:
                tree = tree_of(process.pid)
                await trio.sleep(0.01)
        nvml.compute[0] = [Process(pid, 1) for pid in (*tree, os.getpid(), 1 << 22)]
        nvml.compute[1] = [Process(tree[0], 5)]
        held = {nvml.nvmlDeviceGetUUID(0): len(tree), nvml.nvmlDeviceGetUUID(1): 5}
        assert await weigh(process.pid, False) == Held(None, len(tree) + 5, held)
        for pid in tree[1:]:
            os.kill(pid, 9)


async def test_what_is_not_counted_is_not_known_of_its_model_alone(nvml: FakeNvml) -> None:
    """The driver names one process without its size, and another process with its size."""
    nvml.compute = [[Process(os.getpid(), None), Process(1 << 22, 9)], [Process(os.getpid(), 5)]]
    held = await weigh(os.getpid(), False)
    assert (held.gpu, held.by_gpu) == (None, {nvml.nvmlDeviceGetUUID(1): 5})


async def test_while_a_gpu_is_lost_a_sum_is_not_known(nvml: FakeNvml) -> None:
    """What the process holds on the other GPU is still known."""
    nvml.compute, nvml.lost = [[], [Process(os.getpid(), 5)]], {0}
    held = await weigh(os.getpid(), False)
    assert (held.gpu, held.by_gpu) == (None, {nvml.nvmlDeviceGetUUID(1): 5})


async def test_memory_of_amds_gpus_counts_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's files are made up here."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert await weigh(os.getpid(), False) == Held()
    plug_in(tmp_path / "sys", "card0", "amdgpu", "0000:03:00.0", mem_info_vram_total=16 * GIB)
    assert await weigh(os.getpid(), False) == Held(None, 0)
    open_gpu(tmp_path / "proc", os.getpid(), 4, "0000:03:00.0", client_id=7, resident_vram=MIB)
    assert await weigh(os.getpid(), False) == Held(None, MIB, {"0000:03:00.0": MIB})


async def test_a_process_that_is_gone_holds_nothing() -> None:
    """A process may end at any moment."""
    async with open_child(["true"], env={}, on_output=lambda _: None, grace=0) as process:
        await process.exited()
    assert (await weigh(process.pid, True)).host == 0


def test_what_measures_is_loaded_when_it_is_needed() -> None:
    """A daemon that may never measure starts without psutil."""
    code = "import sys, supervisor; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_where_what_measures_cannot_be_loaded_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be no descriptor left for the module's file; the next look may have one."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert await held_by(os.getpid()) == 0
    monkeypatch.undo()
    assert await held_by(os.getpid()) > MIB
