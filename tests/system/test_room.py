"""Routing by memory in a real daemon: real processes, measured by the kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, wait_for, write

MIB, GIB = 1 << 20, 1 << 30
HOLD = 60  # MiB of each stub, beside a dozen of its interpreter
TWO_FIT = 0.18  # GiB: two stubs of 72 MiB, and what a third has left asleep
NVML = Path(__file__).parents[1] / "peers/nvml"


def placed(models: dict[str, Any], **memory: Any) -> dict[str, Any]:
    """Return a configuration with routing by memory."""
    router = {"use": "memory", "settings": {"memory": memory}}
    return {"models": models, "routing": {"router": router}}


def held_by(daemon: Process) -> dict[str, int]:
    """Return the bytes of each model's process, as the kernel counts them."""
    found = {}
    for name, row in daemon.running().items():
        if row.get("pid"):
            status = Path(f"/proc/{row['pid']}/status").read_text()
            (line,) = (one for one in status.splitlines() if one.startswith("VmRSS"))
            found[name] = int(line.split()[1]) * 1024
    return found


def states(daemon: Process) -> dict[str, str]:
    return {name: row["state"] for name, row in daemon.running().items()}


def swaps(daemon: Process) -> Counter[str]:
    """Return how often models started, woke, slept or stopped so far, by the log's words."""
    words = ("Model ready", "Model sleep completed", "Model wake completed", "Process stopped")
    return Counter(word for line in daemon.events() for word in words if word in line)


def chats(daemon: Process, names: str) -> None:
    """Send requests to models in turn; together they may never hold more than the limit."""
    for name in names:
        status, answer = daemon.chat(name)
        assert status == 200, answer
        assert sum(held_by(daemon).values()) <= TWO_FIT * GIB


def three(**keys: Any) -> dict[str, Any]:
    return {name: stub("--hold", str(HOLD), sleeps=True, **keys) for name in "abc"}


def test_two_of_three_models_stay_awake_once_they_are_known(tmp_path: Path) -> None:
    """Each model's first life is alone; then two that fit are not swapped, even after a restart."""
    file = write(tmp_path, **placed(three(), hostMemory=TWO_FIT))
    state = str(tmp_path / "state")
    with started("--config", file, "--state-dir", state) as daemon:
        chats(daemon, "abcab")
        before = swaps(daemon)
        chats(daemon, "abababab")
        assert swaps(daemon) == before
        assert {name: one for name, one in states(daemon).items() if name != "c"} == {
            "a": "ready",
            "b": "ready",
        }
        held = held_by(daemon)
        assert held["a"] > HOLD * MIB
        assert held["c"] < HOLD * MIB
    with started("--config", file, "--state-dir", state) as daemon:
        chats(daemon, "abab")
        assert swaps(daemon) == {"Model ready": 2}
        chats(daemon, "c")
        assert swaps(daemon)["Model ready"] == 3
        assert swaps(daemon)["Model sleep completed"] == 1
        assert not daemon.said("awake for the first time")


def test_guesses_spare_the_first_lives(tmp_path: Path) -> None:
    """With guesses two models need no swap, and for a third the idle one makes room."""
    file = write(tmp_path, **placed(three(memory={"host": 0.072}), hostMemory=TWO_FIT))
    with started("--config", file, "--state-dir", str(tmp_path / "state")) as daemon:
        chats(daemon, "ababab")
        assert swaps(daemon) == {"Model ready": 2}
        answers: list[int] = []
        long = threading.Thread(target=lambda: answers.append(daemon.chat("a", delay=2)[0]))
        long.start()
        time.sleep(0.3)
        chats(daemon, "c")
        assert states(daemon) == {"a": "ready", "b": "asleep", "c": "ready"}
        long.join()
        assert answers == [200]
        assert daemon.said("<b> Makes room for 'c'")


def test_what_is_known_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """The next daemon knows what was measured some seconds before the kill."""
    file = write(tmp_path, **placed(three(), hostMemory=TWO_FIT), adopt=False)
    state = str(tmp_path / "state")
    with started("--config", file, "--state-dir", state) as daemon:
        chats(daemon, "abab")
        time.sleep(6)
        pids = [row["pid"] for row in daemon.running().values() if row.get("pid")]
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    for pid in pids:
        wait_for(lambda pid=pid: ends(pid))  # type: ignore[misc] # mypy takes it for a lambda without defaults
    with started("--config", file, "--state-dir", state) as daemon:
        chats(daemon, "abab")
        assert swaps(daemon) == {"Model ready": 2}


def ends(pid: int) -> bool:
    """End a process that a killed daemon has left; return whether it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_processes_of_an_earlier_daemon_are_counted(tmp_path: Path) -> None:
    """The adopted models count, awake or asleep, so a new model gets only the room that is left."""
    file = write(tmp_path, **placed(three(memory={"host": 0.072}), hostMemory=TWO_FIT), adopt=True)
    state = str(tmp_path / "state")
    with started("--config", file, "--state-dir", state) as daemon:
        chats(daemon, "ab")
        before = {name: row["pid"] for name, row in daemon.running().items()}
    with started("--config", file, "--state-dir", state) as daemon:
        try:
            chats(daemon, "abab")
            rows = daemon.running()
            assert {name: rows[name]["pid"] for name in "ab"} == {n: before[n] for n in "ab"}
            chats(daemon, "c")
            assert Counter(states(daemon).values()) == {"ready": 2, "asleep": 1}
        finally:
            for name in "abc":
                daemon.ask("POST", f"/api/models/unload/{name}")


# GPUs of a stand-in for NVIDIA's library.


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two GPUs of 24 GiB; return the folder with the files that tell which process holds what."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    monkeypatch.setenv("CUDA_STAND_IN", str(folder))
    monkeypatch.setenv("CUDA_STAND_IN_GPUS", "24,24")
    monkeypatch.setenv("PYTHONPATH", str(NVML))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def on_gpu(awake: int, rest: int = 1, **keys: Any) -> dict[str, Any]:
    """Return a model that takes GiB of its GPU, and exits if the GPU has too little."""
    sizes = ("--gpu", str(awake << 10), "--gpu-rest", str(rest << 10), "--gpu-strict", "1")
    return stub(*sizes, sleeps=True, **keys)


def gpus_of(folder: Path, daemon: Process) -> dict[str, list[int]]:
    """Return the GPUs on which each model holds memory."""
    pids = {row["pid"]: name for name, row in daemon.running().items() if row.get("pid")}
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.*.bytes")):
        holder, number, _ = file.name.split(".")
        if holder.isdigit() and int(holder) in pids:
            found.setdefault(pids[int(holder)], []).append(int(number))
    return found


def stranger(folder: Path, gpu: int, gib: int) -> None:
    (folder / "stranger.new").write_text(str(gib * GIB))
    (folder / "stranger.new").rename(folder / f"stranger.{gpu}.bytes")


def test_models_are_spread_over_gpus_and_share_them(tmp_path: Path, gpus: Path) -> None:
    """llamadoze tells each model its GPU; four models of 10 GiB run at once, two on each GPU."""
    file = write(tmp_path, **placed({name: on_gpu(10) for name in "abcd"}))
    with started("--config", file, "--state-dir", str(tmp_path / "state")) as daemon:
        for name in "abcdabcd":
            assert daemon.chat(name)[0] == 200
        before = swaps(daemon)
        for name in "abcdabcd":
            assert daemon.chat(name)[0] == 200
        assert swaps(daemon) == before
        where = gpus_of(gpus, daemon)
        assert sorted(number for one in where.values() for number in one) == [0, 0, 1, 1]
        assert set(states(daemon).values()) == {"ready"}
        assert not daemon.said("Model failed")


def test_an_adopted_sleeper_wakes_on_its_own_gpu(tmp_path: Path, gpus: Path) -> None:
    """The sleeper holds no memory there that would show its GPU, and another GPU is free."""
    models = {name: on_gpu(20, rest=0, memory={"gpu": 20}) for name in "abc"}
    models["c"]["gpus"] = ["0"]
    file = write(tmp_path, **placed(models), adopt=True)
    state = str(tmp_path / "state")
    with started("--config", file, "--state-dir", state) as daemon:
        for name in "ab":
            assert daemon.chat(name)[0] == 200
        assert gpus_of(gpus, daemon) == {"a": [0], "b": [1]}
        for name in "ab":
            assert daemon.ask("POST", f"/api/models/sleep/{name}")[0] == 200
        before = {name: row["pid"] for name, row in daemon.running().items()}
    with started("--config", file, "--state-dir", state) as daemon:
        try:
            for name in "ca":
                assert daemon.chat(name)[0] == 200
            assert daemon.running()["a"]["pid"] == before["a"]
            assert states(daemon) == {"a": "ready", "b": "asleep", "c": "asleep"}
        finally:
            for name in "abc":
                daemon.ask("POST", f"/api/models/unload/{name}")


def test_a_stranger_keeps_a_model_from_a_gpu(tmp_path: Path, gpus: Path) -> None:
    """The model uses the other GPU; if other programs fill both, the refusal says so."""
    stranger(gpus, 0, 20)
    models = {name: on_gpu(10, memory={"gpu": 10}) for name in "ab"}
    file = write(tmp_path, **placed(models))
    with started("--config", file, "--state-dir", str(tmp_path / "state")) as daemon:
        assert daemon.chat("a")[0] == 200
        assert gpus_of(gpus, daemon) == {"a": [1]}
        stranger(gpus, 1, 10)
        time.sleep(1.2)
        status, said = daemon.chat("b")
        assert status == 200, said  # a has gone to sleep for it
        assert states(daemon)["a"] == "asleep"
        stranger(gpus, 1, 14)
        assert daemon.ask("POST", "/api/models/unload/b")[0] == 200
        status, said = daemon.chat("b")
        assert status == 503
        assert "are held by other programs" in str(said)
        stranger(gpus, 0, 2)
        assert daemon.chat("b")[0] == 200
        assert gpus_of(gpus, daemon)["b"] == [0]


def test_a_model_on_two_gpus_makes_room_on_both(tmp_path: Path, gpus: Path) -> None:
    """Models on either GPU make room, and start or wake again afterwards."""
    pair = on_gpu(20, gpus=2, memory={"gpu": 20})
    models = {**{name: on_gpu(10, memory={"gpu": 10}) for name in "ab"}, "p": pair}
    models["b"]["gpus"] = ["1"]
    file = write(tmp_path, **placed(models))
    with started("--config", file, "--state-dir", str(tmp_path / "state")) as daemon:
        for name in "abpab":
            assert daemon.chat(name)[0] == 200
            if name == "p":
                assert states(daemon) == {"a": "asleep", "b": "asleep", "p": "ready"}
                assert gpus_of(gpus, daemon)["p"] == [0, 1]
        assert states(daemon) == {"a": "ready", "b": "ready", "p": "asleep"}
        assert not daemon.said("Model failed")


def test_a_guess_that_was_too_small_costs_one_start(tmp_path: Path, gpus: Path) -> None:
    """The server exits because memory is short; llamadoze starts it again alone on a GPU."""
    models = {"a": on_gpu(10, memory={"gpu": 10}), "b": on_gpu(16, memory={"gpu": 4}, gpus=["0"])}
    models["a"]["gpus"] = ["0"]
    file = write(tmp_path, **placed(models))
    with started("--config", file, "--state-dir", str(tmp_path / "state")) as daemon:
        assert daemon.chat("a")[0] == 200
        assert daemon.chat("b")[0] == 200
        assert daemon.said(
            "<b> There was too little memory for the model; llamadoze tries once more"
        )
        for name in "abab":
            assert daemon.chat(name)[0] == 200
        assert len([line for line in daemon.events() if "too little memory" in line]) == 1
