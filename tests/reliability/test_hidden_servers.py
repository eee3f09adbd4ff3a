"""Servers behind wrappers: they end with their model, or the next daemon finds and ends them."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import stub_command
from tests.system.daemon import Process, end, is_alive, started, wait_for, write

STUB = stub_command("--port", "${PORT}")
HIDDEN = {
    "behind another session": f"setsid {STUB} & exec sleep 60",
    "an orphan of another session": f"setsid sh -c {shlex.quote(f'{STUB} &')}; exec sleep 60",
    "without our environment": f"env -i setsid sh -c {shlex.quote(f'{STUB} &')}; exec sleep 60",
}


def hidden(script: str) -> dict[str, Any]:
    return {"cmd": f"sh -c {shlex.quote(script)}", "proxy": "http://127.0.0.1:${PORT}"}


def server_of(running: Process) -> int:
    """Return the process that answers, which is not the one that was started."""
    status, answer = running.chat("a")
    assert status == 200, answer
    pid = int(answer["pid"])
    assert pid != running.running()["a"]["pid"]
    return pid


@pytest.mark.parametrize("script", HIDDEN.values(), ids=HIDDEN)
def test_a_hidden_server_ends_with_its_model(tmp_path: Path, script: str) -> None:
    """After an unload nothing is left, so the next start has the room."""
    with started("--config", write(tmp_path, models={"a": hidden(script)})) as running:
        first = server_of(running)
        try:
            assert running.ask("POST", "/api/models/unload/a")[0] == 200
            assert not is_alive(first)
            second = server_of(running)
            assert second != first
        finally:
            end_one(first)
        running.end()
        assert not is_alive(second)


def end_one(pid: int) -> None:
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("script", list(HIDDEN.values())[:2], ids=list(HIDDEN)[:2])
def test_a_hidden_server_of_a_daemon_that_was_killed_is_ended_by_the_next(
    tmp_path: Path, script: str
) -> None:
    """The next daemon finds the server even without its first process and the state file."""
    file = write(tmp_path, models={"a": hidden(script)})
    state = str(tmp_path / "state")
    with started("--config", file, "--state-dir", state) as running:
        pid, leader = server_of(running), int(running.running()["a"]["pid"])
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
    try:
        os.kill(leader, signal.SIGKILL)
        wait_for(lambda: not is_alive(leader))
        assert is_alive(pid)
        (Path(state) / "state.json").unlink()
        with started("--config", file, "--state-dir", state) as running:
            assert not is_alive(pid)
            assert server_of(running) != pid
    finally:
        end([pid])


def test_a_watched_model_that_is_killed_comes_back_by_itself(tmp_path: Path) -> None:
    """llamadoze starts a new process; it does not only change the state."""
    model = {"cmd": STUB, "proxy": "http://127.0.0.1:${PORT}", "watch": True}
    with started("--config", write(tmp_path, models={"a": model})) as running:
        assert running.chat("a")[0] == 200
        pid = int(running.running()["a"]["pid"])
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: running.running().get("a", {}).get("pid") not in (None, pid), 5)
        wait_for(lambda: running.running()["a"]["state"] == "ready", 5)
        assert running.said("Started again after its failure (watch)")
