"""The preset for cuda-checkpoint with a stand-in for NVIDIA's program, and real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events

PROGRAM = """#!/bin/sh
# Only the stub itself has CUDA; its shell has none. States are files, and so is the history.
while [ $# -gt 0 ]; do
    case $1 in
        --get-state) action=get-state ;;
        --action) action=$2; shift ;;
        --pid) pid=$2; shift ;;
        --timeout) shift ;;
    esac
    shift
done
tr '\\0' '\\n' < /proc/$pid/cmdline | head -1 | grep -q python ||
    { echo "no CUDA state" >&2; exit 1; }
[ $action = get-state ] && exit 0
echo "$action $pid" >> %(folder)s/history
[ ! -e %(folder)s/$action-fails ] || { echo "an error occurred" >&2; exit 1; }
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that cuda-checkpoint writes its history to."""
    file = tmp_path / "cuda-checkpoint"
    file.write_text(PROGRAM % {"folder": tmp_path})
    file.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def below_a_shell() -> dict[str, object]:
    """Return a model whose first process is a shell."""
    model = stub(sleep="cuda-checkpoint")
    return {**model, "cmd": f"sh -c '{model['cmd']} & wait'"}


async def test_each_process_with_cuda_is_locked_and_checkpointed(program: Path) -> None:
    """And restored and unlocked under the same pid."""
    async with daemon({"a": below_a_shell(), "b": stub()}) as running:
        pid = (await chat(running.port, "a")).json()["pid"]
        assert pid != running.pid("a")
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        assert (await chat(running.port, "a")).json()["pid"] == pid
    actions = ("lock", "checkpoint", "restore", "unlock")
    assert (program / "history").read_text().split("\n")[:-1] == [f"{one} {pid}" for one in actions]


async def test_a_checkpoint_that_fails_stops_the_model(program: Path, log_lines: LogLines) -> None:
    """With what the program said, and for which process."""
    (program / "checkpoint-fails").touch()
    async with daemon({"a": below_a_shell(), "b": stub()}) as running:
        pid = (await chat(running.port, "a")).json()["pid"]
        assert (await chat(running.port, "b")).status == 200
        assert running.state("a") == "stopped"
        assert (await chat(running.port, "a")).status == 200
    said = f"cuda-checkpoint checkpoint exited with status 1 (an error occurred), for process {pid}"
    assert f"<a> {said}, falling back to Stop()" in events(log_lines)


async def test_a_model_without_cuda_does_not_sleep_this_way(
    program: Path, log_lines: LogLines
) -> None:
    """The log says what was looked for."""
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
    assert any("cuda-checkpoint lock has nothing to do" in line for line in events(log_lines))
