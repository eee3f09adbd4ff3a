"""What a daemon takes over from the daemon before it, and what it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor.processes.census import start_of
from supervisor.processes.kin import Kin
from supervisor.succession.records import read_records
from tests.proxy.daemon import stub
from tests.system.daemon import (
    LLAMADOZE,
    STATE,
    Process,
    end,
    hears,
    is_alive,
    started,
    wait_for,
    write,
)


def two(folder: Path, **more: Any) -> str:
    models = {"a": stub(sleeps=True), "b": stub()}
    return write(folder, models=models, unloadTimeout=1, **more)


def use(daemon: Process, names: str = "ab") -> list[int]:
    """Use models in turns; return their pids."""
    for name in names:
        assert daemon.chat(name)[0] == 200
    return [daemon.running()[name]["pid"] for name in names]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_models_outlive_a_daemon_that_is_restarted_or_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Awake or asleep, the models continue under the next daemon with the same pids."""
    file = two(tmp_path, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon)
        daemon.end(number)
    try:
        assert all(map(is_alive, pids))
        with started("--config", file) as daemon:
            rows = daemon.running()
            assert [(rows[name]["state"], rows[name]["pid"]) for name in "ab"] == [
                ("asleep", pids[0]),
                ("ready", pids[1]),
            ]
            assert daemon.chat("b")[1]["pid"] == pids[1]
            assert daemon.chat("a")[1]["pid"] == pids[0]
            assert not is_alive(pids[1])  # it cannot sleep, so llamadoze stopped it to make room
            assert not daemon.said("<a> Starting process")
            daemon.end(signal.SIGINT)
        assert not is_alive(pids[0])
    finally:
        end(pids)


def test_without_adopt_nothing_outlives_a_daemon_for_long(tmp_path: Path) -> None:
    """A killed daemon leaves orphans; the next daemon ends them before it serves."""
    file = two(tmp_path)
    with started("--config", file) as daemon:
        pids = use(daemon)
        daemon.end(signal.SIGKILL)
    try:
        assert is_alive(pids[0])
        with started("--config", file) as daemon:
            assert not any(map(is_alive, pids))
            assert daemon.running() == {}
            assert daemon.said("<a> Ending the process")
            assert daemon.chat("a")[0] == 200
    finally:
        end(pids)


def test_a_process_of_another_configuration_is_ended(tmp_path: Path) -> None:
    """The operator wants another configuration now; a removed model's process is ended, too."""
    file = two(tmp_path, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon)
        daemon.end(signal.SIGTERM)
    try:
        text = Path(file).read_text()
        Path(file).write_text(text.replace("  b:", "  b:\n    env: [X=1]").replace("  a:", "  c:"))
        with started("--config", file) as daemon:
            assert not any(map(is_alive, pids))
            assert daemon.said("its model's configuration has changed")
            assert daemon.said("its model is not in the configuration any more")
    finally:
        end(pids)


def test_a_process_that_does_not_answer_any_more_is_ended(tmp_path: Path) -> None:
    """The state file says that the model is ready, but its check fails."""
    file = write(tmp_path, models={"b": stub()}, unloadTimeout=1, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGTERM)
    try:
        os.kill(pids[0], signal.SIGSTOP)
        with started("--config", file, wait=20) as daemon:
            assert not is_alive(pids[0])
            assert daemon.said("it does not answer its check")
    finally:
        end(pids)


def test_a_sleeper_that_was_woken_by_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    """A sleeper that was woken holds memory that llamadoze would believe to be free."""
    models = {"a": stub(sleep="vllm", verify={"timeout": 1}), "b": stub()}
    file = write(tmp_path, models=models, unloadTimeout=1, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon)
        address = daemon.running()["a"]["proxy"]
        daemon.end(signal.SIGTERM)
    try:
        Process(daemon.process, int(address.rpartition(":")[2])).ask("POST", "/wake_up")
        with started("--config", file, wait=20) as daemon:
            assert not is_alive(pids[0])
            assert daemon.said("asleep (GET /is_sleeping) timed out")
            assert daemon.running()["b"]["pid"] == pids[1]
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


@pytest.mark.parametrize("path", ["/sleep", "/wake_up"])
def test_an_adopted_process_whose_sleep_or_wake_fails_is_replaced(
    tmp_path: Path, path: str
) -> None:
    """The failure is counted, and the waiting request is served, as with any other process."""
    models = {"a": stub(sleep="vllm"), "b": stub()}
    file = write(tmp_path, models=models, unloadTimeout=1, adopt=True)
    names = "ab" if path == "/wake_up" else "a"
    with started("--config", file) as daemon:
        pids = use(daemon, names)
        port = int(daemon.running()["a"]["proxy"].rpartition(":")[2])
        daemon.end(signal.SIGTERM)
    try:
        with started("--config", file, wait=20) as daemon:
            assert daemon.running()["a"]["pid"] == pids[0]
            Process(daemon.process, port).ask("POST", "/faults", {path: {"status": 500}})
            assert daemon.chat("a" if path == "/wake_up" else "b")[0] == 200
            assert not is_alive(pids[0])
            assert daemon.said(f"(POST {path}")
            assert not daemon.said("Internal error")
            assert daemon.chat("a")[1]["pid"] != pids[0]
            assert daemon.running()["a"]["sleep"]["failures"] == 1
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


def test_what_it_wrote_is_known_of_an_adopted_process(tmp_path: Path) -> None:
    """The process's last output explains its end."""
    file = write(tmp_path, models={"b": stub()}, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGTERM)
    try:
        with started("--config", file) as daemon:
            assert daemon.chat("b", die=3)[0] == 502
            wait_for(lambda: daemon.said("last output: the stub was told to die"))
            assert daemon.chat("b")[0] == 200
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


def test_a_stranger_with_the_pid_of_a_record_is_left_alone(tmp_path: Path) -> None:
    """A process belongs to llamadoze only if its start time is the recorded one."""
    file = two(tmp_path)
    state = tmp_path / "state"
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with started("--config", file, "--state-dir", str(state)) as daemon:
            use(daemon, "b")
            daemon.end(signal.SIGKILL)
        data = json.loads((state / "state.json").read_text())
        handle = data["models"][0]["handle"]
        pid = handle["pid"]
        of_stranger = {**handle, "pid": stranger.pid, "token": ""}
        data["models"].append({**data["models"][0], "handle": of_stranger})
        (state / "state.json").write_text(json.dumps(data))
        with started("--config", file, "--state-dir", str(state)):
            assert not is_alive(pid)
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_two_daemons_with_one_configuration_leave_each_other_alone(tmp_path: Path) -> None:
    """The second daemon keeps no state, and logs that."""
    file = two(tmp_path, adopt=True)
    with started("--config", file) as first:
        pids = use(first)
        with started("--config", file) as second:
            assert second.said("Another llamadoze has the state folder")
            assert all(map(is_alive, pids))
            second.end(signal.SIGTERM)
        assert first.chat("a")[1]["pid"] == pids[0]
        first.end(signal.SIGINT)
    assert not any(map(is_alive, pids))


def test_a_state_file_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    """The daemon serves all the same."""
    file, state = two(tmp_path), tmp_path / "state"
    state.mkdir()
    (state / "state.json").write_text('{"boot": 1')
    with started("--config", file, "--state-dir", str(state)) as daemon:
        assert daemon.said("Cannot read")
        assert daemon.chat("b")[0] == 200
    with started("--config", file, "--state-dir", "/proc/nowhere") as daemon:
        assert daemon.said("Cannot use /proc/nowhere")
        assert daemon.chat("b")[0] == 200


@pytest.mark.parametrize("adopt", [True, False])
def test_no_process_of_a_killed_daemon_is_lost(tmp_path: Path, adopt: bool) -> None:
    """Some models were stopped, some have failed, and some are only starting."""
    models = {
        "a": stub(sleeps=True),
        "bad": stub("--exit", "3"),
        "slow": stub("--ready-after", "30"),
        "z": stub(),
    }
    groups = {"g": {"swap": False, "members": list(models)}}
    file = write(tmp_path, models=models, groups=groups, unloadTimeout=1, adopt=adopt)
    pids: list[int] = []
    try:
        with started("--config", file) as daemon:
            pids += use(daemon, "az")
            daemon.ask("POST", "/api/models/unload/z")
            assert daemon.chat("bad")[0] == 502
            caller = threading.Thread(target=lambda: broken(daemon.chat, "slow"))
            caller.start()
            wait_for(lambda: daemon.running().get("slow", {}).get("pid") is not None)
            pids.append(daemon.running()["slow"]["pid"])
            daemon.end(signal.SIGKILL)
            caller.join()
        with started("--config", file) as daemon:
            assert [is_alive(pid) for pid in pids] == [adopt, False, False]
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


def broken(ask: Callable[..., Any], *arguments: object) -> None:
    with contextlib.suppress(OSError):
        ask(*arguments)


def test_models_do_not_outlive_a_daemon_that_cannot_tell_of_them(tmp_path: Path) -> None:
    """Without a record, no later daemon could find them."""
    file, state = two(tmp_path, adopt=True), tmp_path / "state"
    with started("--config", file, "--state-dir", str(state)) as daemon:
        (state / "state.new").mkdir()
        pids = use(daemon, "b")
        assert daemon.said("Cannot write")
        daemon.end(signal.SIGTERM)
    assert not any(map(is_alive, pids))


def test_a_process_that_writes_to_its_daemon_is_not_taken_over(tmp_path: Path) -> None:
    """The process's output pipe breaks when the daemon ends."""
    file = two(tmp_path)
    with started("--config", file) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGKILL)
    try:
        Path(file).write_text(Path(file).read_text() + "adopt: true\n")
        with started("--config", file) as daemon:
            assert not is_alive(pids[0])
            assert daemon.said("started without adopt")
    finally:
        end(pids)


def test_the_state_is_found_again_when_files_come_to_a_folder(tmp_path: Path) -> None:
    """The state is kept under the name of the folder."""
    write(tmp_path, models={"b": stub()}, adopt=True)
    with started("--config-dir", str(tmp_path)) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGTERM)
    try:
        (tmp_path / "more.yaml").write_text("models: {}\n")
        with started("--config-dir", str(tmp_path)) as daemon:
            assert daemon.running()["b"]["pid"] == pids[0]
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


def test_signals_are_heard_while_leftovers_are_ended(tmp_path: Path) -> None:
    """SIGHUP does no harm and SIGTERM ends the daemon; the next daemon ends what is left."""
    file = write(tmp_path, models={"b": stub("--ignore-term", "1")}, unloadTimeout=8)
    with started("--config", file) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGKILL)
    try:
        process = subprocess.Popen(
            [LLAMADOZE, "--config", file, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_STATE_HOME": STATE},
        )
        assert process.stdout
        while b"Ending the process" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 0
        process.stdout.close()
        assert is_alive(pids[0])
        Path(file).write_text(Path(file).read_text().replace("Timeout: 8", "Timeout: 1"))
        with started("--config", file):
            assert not is_alive(pids[0])
    finally:
        end(pids)


HOSTILE = [
    "[" * 100_000,
    '{"boot": "%s", "models": 5}',
    '{"boot": "%s", "models": [5, null, {}, {"pid": 1}]}',
    '{"boot": "%s", "models": [{"model": [1], "pid": 1.5, "started": 1, "port": null, '
    '"state": "ready", "fingerprint": "", "logs": true}]}',
    '{"boot": "%s", "models": [{"model": "b", "pid": 99999999999, "started": 1, "port": null, '
    '"state": "ready", "fingerprint": "", "logs": true}]}',
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_state_file_keeps_no_daemon_from_its_start(tmp_path: Path, text: str) -> None:
    """No number from a damaged file is used to send a signal."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    file = tmp_path / "state.json"
    file.write_text(text.replace("%s", boot))
    assert read_records(file) == ()


def test_a_pipe_in_the_place_of_the_state_file_holds_up_nobody(tmp_path: Path) -> None:
    """llamadoze reads only regular files."""
    os.mkfifo(tmp_path / "state.json")
    assert read_records(tmp_path / "state.json") == ()


def test_a_group_of_strangers_without_its_leader_is_left_alone() -> None:
    """The group has the number of a former process of a model, but is another session's job."""
    script = "sleep 60 & exec sleep 0.1"
    leader = subprocess.Popen(["sh", "-c", script], process_group=0)
    leader.wait()
    try:
        assert trio.run(Kin(leader.pid, 1).members) == []
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
    ours = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    start = start_of(ours.pid)
    ours.wait()
    try:
        assert len(trio.run(Kin(ours.pid, start or 0).members)) == 1
    finally:
        os.killpg(ours.pid, signal.SIGKILL)


def test_models_outlive_one_daemon_after_the_other(tmp_path: Path) -> None:
    """This includes a daemon that did nothing but take the models over."""
    file = two(tmp_path, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon)
        daemon.end(signal.SIGKILL)
    try:
        for _ in range(2):
            with started("--config", file) as daemon:
                assert [daemon.running()[name]["pid"] for name in "ab"] == pids
                daemon.end(signal.SIGKILL)
    finally:
        end(pids)


def test_a_restart_that_is_called_off_forgets_nothing(tmp_path: Path) -> None:
    """A daemon that is stopped while it still checks the processes has changed nothing."""
    file = write(tmp_path, models={"b": stub()}, adopt=True)
    with started("--config", file) as daemon:
        pids = use(daemon, "b")
        daemon.end(signal.SIGTERM)
    try:
        os.kill(pids[0], signal.SIGSTOP)
        process = subprocess.Popen(
            [LLAMADOZE, "--config", file, "--listen", "127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "XDG_STATE_HOME": STATE},
        )
        wait_for(lambda: hears(process.pid, signal.SIGTERM))
        time.sleep(0.2)  # the daemon checks them now, and gets no answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 0
        os.kill(pids[0], signal.SIGCONT)
        with started("--config", file) as daemon:
            assert daemon.running()["b"]["pid"] == pids[0]
            os.kill(pids[0], signal.SIGKILL)
            wait_for(lambda: daemon.said("process ended (exit status unknown"))
            daemon.end(signal.SIGINT)
    finally:
        end(pids)


def test_what_was_taken_over_is_not_made_to_leave_by_a_preload(tmp_path: Path) -> None:
    """Adopted models are kept rather than replaced by a preload."""
    hooks = {"on_startup": {"preload": ["a"]}}
    file = two(tmp_path, adopt=True, hooks=hooks)
    with started("--config", file) as daemon:
        wait_for(lambda: daemon.said("<a> Model preloaded"))
        pids = use(daemon, "b")
        daemon.end(signal.SIGTERM)
    try:
        with started("--config", file) as daemon:
            time.sleep(0.5)
            assert daemon.running()["b"]["state"] == "ready"
            daemon.end(signal.SIGINT)
    finally:
        end(pids)
