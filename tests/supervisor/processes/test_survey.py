"""One look at all memory: whose it is, and what is left. GPUs and limits are made up."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from supervisor.processes import survey as surveying
from supervisor.processes.census import Table
from supervisor.processes.child import Child, open_child
from supervisor.processes.memory import Held
from supervisor.processes.survey import Host, Survey, survey
from tests.conftest import stub_command
from tests.peers.client import ask
from tests.peers.nvml import pynvml as stand_in
from tests.ports import free_port
from tests.supervisor.room.gpus import GIB, FakeNvml, Process, made_up_nvml, write

MIB = 1 << 20
FIRST, SECOND = (stand_in.nvmlDeviceGetUUID(number) for number in (0, 1))


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    with made_up_nvml(monkeypatch, fake):
        yield fake


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two GPUs, of 8 and of 4 GiB; return the folder where processes write what they hold."""
    monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path))
    monkeypatch.setenv("CUDA_STAND_IN_GPUS", "8,4")
    with made_up_nvml(monkeypatch, stand_in):
        yield tmp_path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made_up = Host(tmp_path / "proc", tmp_path / "cgroup")
    write(made_up.proc / "meminfo", "MemTotal:       8388608 kB\nMemAvailable:   4194304 kB")
    return made_up


def server_on(port: int, *options: str) -> list[str]:
    return shlex.split(stub_command("--port", str(port), *options))


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*.bytes")]


@asynccontextmanager
async def served(*options: str, **env: str) -> AsyncIterator[tuple[Child, int]]:
    """Run a made-up model server; yield when it listens."""
    port = free_port(1)
    argv = server_on(port, *options)
    async with open_child(
        argv, env={**os.environ, **env}, on_output=lambda _: None, grace=2
    ) as child:
        with trio.fail_after(5):
            while not await listens(port):
                await trio.sleep(0.01)
        yield child, port


async def listens(port: int) -> bool:
    try:
        return (await ask(port, "GET", "/health")).status == 200
    except OSError:
        return False


async def test_each_process_counts_for_the_tree_that_it_belongs_to(nvml: FakeNvml) -> None:
    """What a tree has started counts on each GPU; a stranger's process counts for no tree."""
    argv = ["sh", "-c", "sleep 60 & sleep 60 & wait"]
    async with (
        open_child(argv, env={}, on_output=lambda _: None, grace=0) as one,
        open_child(argv, env={}, on_output=lambda _: None, grace=0) as other,
    ):
        with trio.fail_after(5):
            while len(Table.now().below([one.pid, other.pid])) < 6:
                await trio.sleep(0.01)
        ours = Table.now().below([one.pid])
        nvml.compute = [
            [*(Process(pid, 10) for pid in ours), Process(other.pid, 5), Process(1 << 22, 100)],
            [Process(ours[-1], 1000)],
        ]
        seen = await survey({"a": one.pid, "b": other.pid})
    first, second = (reading.device.name for reading in seen.readings)
    assert [reading.used for reading in seen.readings] == [135, 1000]
    assert (seen.held["a"].gpu, seen.held["a"].by_gpu) == (1030, {first: 30, second: 1000})
    assert (seen.held["b"].gpu, seen.held["b"].by_gpu) == (5, {first: 5})
    assert all((seen.held[key].host or 0) > 100_000 for key in "ab")


async def test_a_process_that_is_younger_than_the_table_is_asked_whose_it_is(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was started while the look was under way."""
    async with open_child(["sleep", "60"], env={}, on_output=lambda _: None, grace=0) as child:
        monkeypatch.setattr(Table, "now", lambda: Table({}, {}, {}))
        nvml.compute[0] = [Process(child.pid, 10), Process(os.getpid(), 5)]
        seen = await survey({"a": os.getpid(), "b": child.pid})
    assert (seen.held["a"].gpu, seen.held["b"].gpu) == (15, 10)


async def test_what_the_driver_does_not_count_is_not_known(nvml: FakeNvml) -> None:
    """The total that is taken is still known."""
    nvml.compute = [[Process(os.getpid(), None)], []]
    seen = await survey({"a": os.getpid()})
    assert (seen.held["a"].gpu, seen.held["a"].by_gpu) == (None, {})
    assert seen.readings[0].held is None


async def test_a_model_that_is_gone_holds_nothing(nvml: FakeNvml) -> None:
    """A model may end at any moment."""
    assert nvml.draws
    assert (await survey({"a": 1 << 22})).held == {"a": Held(0, 0, {}, 0)}


async def test_without_a_thread_the_hosts_memory_is_known_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next look may have a thread."""

    async def none(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", none)
    seen = await survey({"a": os.getpid()})
    assert (seen.readings, seen.held) == ((), {})
    assert (seen.host_total or 0) >= (seen.host_free or 0) > 0


async def test_without_a_descriptor_there_is_what_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml
) -> None:
    """The driver has its own descriptor, so the GPUs can still be seen."""

    def fails(*_: object) -> NoReturn:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(Table, "now", fails)
    monkeypatch.setattr(surveying, "resident_of", fails)
    nvml.compute[0] = [Process(os.getpid(), 5)]
    seen = await survey({"a": os.getpid()})
    assert len(seen.readings) == 2
    assert (seen.held["a"].host, seen.held["a"].gpu) == (None, 5)


def test_nothing_is_known_where_the_kernel_tells_nothing(tmp_path: Path) -> None:
    """Missing files of the kernel are no failure."""
    assert Host(tmp_path, tmp_path).memory() == (None, None)
    assert (Survey().host_total, Survey().host_free) == (None, None)


def test_without_a_limit_the_machines_memory_is_there(host: Host) -> None:
    """This is so with either version of control groups."""
    assert host.memory() == (8 * GIB, 4 * GIB)
    write(host.proc / "self/cgroup", "4:cpu,memory:/a\n0::/a")
    write(host.cgroups / "a/memory.max", "max")
    write(host.cgroups / "memory/a/memory.limit_in_bytes", (1 << 63) - 4096)
    assert host.memory() == (8 * GIB, 4 * GIB)


def test_a_limit_of_the_daemons_control_group_counts(host: Host) -> None:
    """A limit of a group above it counts, too; file cache that can be dropped counts as free."""
    write(host.proc / "self/cgroup", "0::/system.slice/llamadoze.service")
    group = host.cgroups / "system.slice"
    write(group / "llamadoze.service/memory.max", "max")
    write(group / "memory.max", 6 * GIB)
    write(group / "memory.current", 5 * GIB)
    write(group / "memory.stat", f"anon 1\nactive_file 1\ninactive_file {GIB}")
    assert host.memory() == (6 * GIB, 2 * GIB)


def test_a_limit_of_a_container_counts(host: Host) -> None:
    """A container sees its own group as the root, or knows only the path outside."""
    write(host.proc / "self/cgroup", "5:memory:/docker/0123\n4:cpu:/")
    group = host.cgroups / "memory"
    write(group / "memory.limit_in_bytes", 3 * GIB)
    write(group / "memory.usage_in_bytes", 2 * GIB)
    write(group / "memory.stat", "total_cache 5\ntotal_inactive_file 1024")
    assert host.memory() == (3 * GIB, GIB + 1024)


def test_a_limit_that_is_above_what_there_is_gives_no_more(host: Host) -> None:
    """A group that is over its limit has nothing left."""
    write(host.proc / "self/cgroup", "0::/")
    write(host.cgroups / "memory.max", 16 * GIB)
    write(host.cgroups / "memory.current", GIB)
    assert host.memory() == (8 * GIB, 4 * GIB)
    write(host.cgroups / "memory.current", 17 * GIB)
    assert host.memory() == (8 * GIB, 0)


async def test_a_made_up_server_holds_memory_of_the_gpu_that_it_was_given(gpus: Path) -> None:
    """The GPU is given by UUID or index; the server holds less asleep, and nothing at the end."""
    write(gpus / "stranger.1.bytes", GIB)
    async with (
        served("--gpu", "1000", CUDA_VISIBLE_DEVICES=SECOND) as (one, port),
        served("--gpu", "500", "--gpu-rest", "20", CUDA_VISIBLE_DEVICES="0,1") as (two, other),
        served("--gpu", "300") as (three, _),
    ):
        roots = {"a": one.pid, "b": two.pid, "c": three.pid}
        seen = await survey(roots)
        assert {key: dict(held.by_gpu) for key, held in seen.held.items()} == {
            "a": {SECOND: 1000 * MIB},
            "b": {FIRST: 500 * MIB, SECOND: 500 * MIB},
            "c": {FIRST: 300 * MIB},
        }
        assert [(one.device.total, one.used) for one in seen.readings] == [
            (8 * GIB, 800 * MIB),
            (4 * GIB, 1500 * MIB + GIB),
        ]
        await ask(port, "POST", "/sleep")
        await ask(other, "POST", "/sleep")
        seen = await survey(roots)
        assert (seen.held["a"].gpu, seen.held["b"].gpu) == (0, 40 * MIB)
        await ask(port, "POST", "/wake_up")
        assert (await survey(roots)).held["a"].gpu == 1000 * MIB
    assert files_in(gpus) == ["stranger.1.bytes"]


async def test_a_made_up_server_finds_no_more_room_than_there_is(gpus: Path) -> None:
    """The server ends at its start and does not wake, because CUDA's memory has run out."""
    said: list[bytes] = []
    strict = ["--gpu", "3000", "--gpu-strict", "1"]
    on_second = {**os.environ, "CUDA_VISIBLE_DEVICES": "1"}
    async with served(*strict, CUDA_VISIBLE_DEVICES=SECOND) as (child, port):
        argv = server_on(free_port(1), *strict)
        async with open_child(argv, env=on_second, on_output=said.append, grace=0) as other:
            await other.exited()
        await ask(port, "POST", "/sleep")
        write(gpus / "stranger.1.bytes", 2 * GIB)
        assert (await ask(port, "POST", "/wake_up")).status == 500
        assert (await survey({"a": child.pid})).held["a"].gpu == 0
        (gpus / "stranger.1.bytes").unlink()
        assert (await ask(port, "POST", "/wake_up")).status == 200
        os.kill(child.pid, signal.SIGTERM)
    assert b"".join(said) == b"CUDA error: out of memory\n"


async def test_whatever_a_driver_does_nothing_is_seen_then_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, object]]
) -> None:
    """The log has the internal error, and a decision goes on with what was seen before."""

    def raises(_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("supervisor.processes.survey.look_at_all", raises)
    assert await survey({"a": 1}) == Survey()
    assert (
        log_lines[-1]["event"]
        == "Internal error while measuring memory; llamadoze goes on without a reading"
    )
