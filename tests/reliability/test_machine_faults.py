"""A machine that runs out of file descriptors or disk space, and a clock that jumps."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
import trio

from tests.peers.client import chat
from tests.ports import free_port
from tests.proxy.daemon import daemon, stub
from tests.system.daemon import LLAMADOZE, Process, started, wait_for, write


def test_without_descriptors_requests_fail_and_come_back_with_them(tmp_path: Path) -> None:
    """The daemon and the models that run survive, and requests succeed again later."""
    models = {"a": stub(sleep="vllm"), "b": stub()}
    with started("--config", write(tmp_path, models=models)) as running:
        assert running.chat("a")[0] == 200
        process = psutil.Process(running.process.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 1, hard))
        status, answer = running.chat("b")
        assert status == 502, answer
        assert "Too many open files" in str(answer)
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        wait_for(lambda: running.chat("b")[0] == 200)
        assert running.chat("a")[0] == 200
        assert running.running()["a"]["in_flight"] == 0


def test_a_full_disk_under_the_state_file_is_told_once_and_hurts_nobody(tmp_path: Path) -> None:
    """A size limit stands for the full disk; it also applies to the log, and /logs still works."""
    state = tmp_path / "state"
    file = write(tmp_path, models={"a": stub(sleep="vllm"), "b": stub()})
    with started("--config", file, "--state-dir", str(state)) as running:
        psutil.Process(running.process.pid).rlimit(psutil.RLIMIT_FSIZE, (0, 0))
        for model in ("a", "b", "a"):
            assert running.chat(model)[0] == 200
        with urlopen(f"http://127.0.0.1:{running.port}/logs") as reply:
            log = reply.read().decode()
        assert log.count(f"Cannot write {state}/state.json: File too large") == 1
        assert {name: row["state"] for name, row in running.running().items()} == {"a": "ready"}


def test_a_full_disk_under_a_models_log_file_hurts_the_daemon_not(tmp_path: Path) -> None:
    """With adopt, the model's output goes to a file; a size limit stands for the full disk."""
    models = {"a": stub("--flood", "1", sleep="vllm"), "b": stub()}
    state = tmp_path / "state"
    file = write(tmp_path, models=models, adopt=True)
    with started("--config", file, "--state-dir", str(state)) as running:
        psutil.Process(running.process.pid).rlimit(psutil.RLIMIT_FSIZE, (0, 0))
        for model in ("a", "b", "a"):
            assert running.chat(model)[0] == 200
        assert [log.stat().st_size for log in state.glob("*.log")] == [0, 0]


def test_a_full_disk_under_the_daemons_own_log_hurts_nobody(tmp_path: Path) -> None:
    """The daemon's log lines are lost, but requests are served."""
    port = free_port(1)
    file = write(tmp_path, models={"a": stub(sleep="vllm"), "b": stub()})
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [LLAMADOZE, "--config", file, "--listen", f"127.0.0.1:{port}"],
            stdout=full,
            stderr=full,
        )
    running = Process(process, port)
    try:
        wait_for(lambda: answers(running))
        for model in ("a", "b", "a"):
            assert running.chat(model)[0] == 200
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def answers(running: Process) -> bool:
    try:
        return running.ask("GET", "/health")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_a_clock_that_jumps_by_a_day_changes_nothing(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze measures all times on the monotonic clock."""
    true_time = time.time
    models = {"a": stub(sleep="vllm", sleepTtl=3600, ttl=7200), "b": stub(ttl=3600)}
    async with daemon(models) as running:
        first = (await chat(running.port, "a")).json()["pid"]
        monkeypatch.setattr(time, "time", lambda: true_time() + jump)
        assert (await chat(running.port, "b")).status == 200
        monkeypatch.setattr(time, "time", lambda: true_time() - jump)
        with trio.fail_after(2):
            assert (await chat(running.port, "a")).json()["pid"] == first
