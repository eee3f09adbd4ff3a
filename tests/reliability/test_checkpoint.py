"""The preset cuda-checkpoint with real processes, and stand-ins for NVIDIA's driver and program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from configschema import Limits
from tests.conftest import processes_with
from tests.peers.client import ask, chat
from tests.proxy.daemon import Daemon, daemon, stub
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events

LIBRARY = Path(__file__).parents[1] / "peers/libcuda.c"
COMPILER = shutil.which("cc") or ""
PROGRAM = """#!/bin/sh
# --toggle --pid PID: files hold the states of processes, as the driver's stand-in has them.
cd %(folder)s
[ -e $3 ] || { echo "no CUDA state" >&2; exit 1; }
case $(cat $3) in 0) action=checkpoint; state=2 ;; *) action=restore; state=0 ;; esac
[ ! -e $action-fails ] || { echo "an error occurred" >&2; exit 1; }
echo "$action $3" >> history
printf $state > $3
"""
BY_DRIVER = ["lock {} 10000", "checkpoint {} 0", "restore {} 0", "unlock {} 0"]
BY_PROGRAM = ["checkpoint {}", "restore {}"]


def make_program(folder: Path) -> None:
    """Write NVIDIA's program, and a driver that is too old for the calls."""
    old = ["-x", "c", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), "/dev/null"]
    subprocess.run([COMPILER, *old], check=True)
    file = folder / "cuda-checkpoint"
    file.write_text(PROGRAM % {"folder": folder})
    file.chmod(0o700)


def make_library(folder: Path) -> None:
    target = folder / "libcuda.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", target, LIBRARY], check=True)


pytestmark = pytest.mark.skipif(not COMPILER, reason="no C compiler for the stand-ins")


@pytest.fixture(
    params=[
        pytest.param(make_library, id="driver"),
        pytest.param(make_program, id="program"),
    ]
)
def cuda(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where the stand-in keeps states and its history."""
    make: Callable[[Path], None] = request.param
    make(tmp_path)
    monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def below_a_shell() -> dict[str, object]:
    """Return a model whose first process is a shell, which has no CUDA."""
    model = stub(sleep="cuda-checkpoint")
    return {**model, "cmd": f"sh -c '{model['cmd']} & wait'"}


async def started(running: Daemon, cuda: Path) -> int:
    """Start the model; return the pid of the process that uses CUDA."""
    pid = int((await chat(running.port, "a")).json()["pid"])
    assert pid != running.pid("a")
    (cuda / str(pid)).write_text("0")
    return pid


async def test_each_process_with_cuda_is_suspended_and_resumed(cuda: Path) -> None:
    """The process keeps its pid, and has ten seconds for its work on the GPU to end."""
    async with daemon({"a": below_a_shell(), "b": stub()}) as running:
        pid = await started(running, cuda)
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        assert (cuda / str(pid)).read_text() == "2"
        assert (await chat(running.port, "a")).json()["pid"] == pid
    steps = BY_PROGRAM if (cuda / "cuda-checkpoint").exists() else BY_DRIVER
    assert (cuda / "history").read_text().splitlines() == [step.format(pid) for step in steps]


async def test_a_suspension_that_fails_stops_the_model(cuda: Path, log_lines: LogLines) -> None:
    """The log has what the driver or the program said."""
    (cuda / "checkpoint-fails").touch()
    async with daemon({"a": below_a_shell(), "b": stub()}) as running:
        await started(running, cuda)
        assert (await chat(running.port, "b")).status == 200
        assert running.state("a") == "stopped"
        (cuda / "checkpoint-fails").unlink()
        assert (await chat(running.port, "a")).status == 200
    said = "cuda-checkpoint suspend exited with status 1 ("
    (line,) = [line for line in events(log_lines) if said in line]
    assert "cannot checkpoint process" in line or "an error occurred" in line
    assert line.endswith("falling back to Stop()")


async def test_a_process_that_cannot_be_restored_is_replaced(
    cuda: Path, log_lines: LogLines
) -> None:
    """A restore that has failed can never succeed, so a new process serves the request."""
    async with daemon({"a": below_a_shell(), "b": stub()}) as running:
        pid = await started(running, cuda)
        await chat(running.port, "b")
        (cuda / "restore-fails").touch()
        reply = await chat(running.port, "a")
        assert (reply.status, reply.json()["pid"] != pid) == (200, True)
    assert any("cuda-checkpoint resume exited with" in line for line in events(log_lines))


async def test_a_model_without_cuda_does_not_sleep_this_way(
    cuda: Path, log_lines: LogLines
) -> None:
    """llamadoze stops the model, and the log says that no process of it uses CUDA."""
    a: dict[str, object] = {
        "cmd": "sleep 60",
        "proxy": "http://127.0.0.1:9",
        "checkEndpoint": "none",
    }
    a |= {"sleep": "cuda-checkpoint", "verify": {"canary": False}}
    async with daemon({"a": a, "b": stub()}) as running:
        await ask(running.port, "POST", "/api/models/load/a")
        assert (await chat(running.port, "b")).status == 200
        assert running.state("a") == "stopped"
    assert any("no process of the model uses CUDA" in line for line in events(log_lines))


async def test_a_driver_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    """When the sleep's time has passed, llamadoze kills the driver's helper and stops the model."""
    make_library(tmp_path)
    monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    (tmp_path / "hangs").touch()
    limits = {"a": Limits(sleep=0.3, unload=0.5)}
    async with daemon({"a": below_a_shell(), "b": stub()}, limits=limits) as running:
        await started(running, tmp_path)
        shell = running.pid("a")
        with trio.fail_after(5):
            assert (await chat(running.port, "b")).status == 200
        assert running.state("a") == "stopped"
    said = "<a> cuda-checkpoint suspend timed out after 0.300s, falling back to Stop()"
    assert said in events(log_lines)
    assert processes_with(f"suspend {shell} ") == []
