"""Model servers as steps of a real Slurm: how they end, who finds them, and who may reach them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, until
from tests.slurm.conftest import STUB, Daemon, stub
from tests.system.daemon import wait_for

pytestmark = pytest.mark.slurm
GRACEFUL = str(Path(__file__).with_name("says_goodbye.py"))


def test_a_server_hears_sigterm_and_has_its_grace(
    daemon: Daemon, cluster: Cluster, tmp_path: Path
) -> None:
    """llamadoze does not ask srun to end, because srun would kill the server at once."""
    model = stub(options=f"--goodbye {tmp_path}/goodbye")
    model["cmd"] = model["cmd"].replace(str(STUB), GRACEFUL)
    with daemon({"a": model}) as process:
        assert process.chat("a")[0] == 200
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        assert (tmp_path / "goodbye").read_text() == "SIGTERM"
        until(lambda: cluster.steps() == [])


def test_a_server_that_does_not_end_is_killed(daemon: Daemon, cluster: Cluster) -> None:
    """llamadoze kills the server after its unloadTimeout."""
    with daemon({"a": stub(options="--ignore-term 1", unloadTimeout=1)}) as process:
        assert process.chat("a")[0] == 200
        began = time.monotonic()
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        assert 1 <= time.monotonic() - began < 5
        assert cluster.steps() == []


def test_a_server_that_dies_is_seen_at_once(daemon: Daemon) -> None:
    """/running gives the exit status and last output, and the next request starts a new server."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        assert process.chat("a", die=7)[0] == 502
        wait_for(lambda: process.running()["a"]["state"] == "failed", 2)
        assert "status 7" in process.running()["a"]["failure"]
        assert "told to die" in process.running()["a"]["failure"]
        wait_for(lambda: process.chat("a")[0] == 200)


def test_a_job_that_somebody_cancels_is_told_of_and_asked_for_again(
    daemon: Daemon, cluster: Cluster
) -> None:
    """The cancelled job does not count as a failure of the model."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        first = process.running()["a"]["cluster"]["job"]
        cluster.run("scancel", first)
        wait_for(lambda: process.running().get("a", {}).get("state") != "ready")
        assert process.chat("a")[0] == 200
        assert process.running()["a"]["cluster"]["job"] != first
        assert process.running()["a"]["failures"] == 0


def test_a_command_that_cannot_be_started_is_told(daemon: Daemon) -> None:
    """The client gets the reason, as for a model on this machine."""
    with daemon({"a": stub(cmd="/no/such/server --port ${PORT}")}) as process:
        status, said = process.chat("a")
        assert status == 502
        assert "cmd cannot be started: No such file or directory" in str(said)


@pytest.mark.parametrize("adopts", [True, False])
def test_a_daemon_that_is_killed_is_followed_by_one_that_knows_all(
    daemon: Daemon, cluster: Cluster, adopts: bool
) -> None:
    """The next daemon keeps the model that serves, and wakes the sleeper before a request."""
    models = {"a": stub(), "b": stub()}
    with daemon(models, adopt=adopts) as process:
        assert process.chat("a")[0] == process.chat("b")[0] == 200
        pids = {name: process.chat(name)[1]["pid"] for name in ("a", "b")}
        before = cluster.steps()
        process.process.kill()
    with daemon(models, adopt=adopts) as process:
        wait_for(lambda: len(process.running()) == 2)
        rows = process.running()
        assert {rows[name]["state"] for name in models} == {"asleep", "ready"}
        assert cluster.steps() == before
        for name in models:
            status, said = process.chat(name)
            assert (status, said["pid"]) == (200, pids[name])
    assert cluster.jobs("R", "PD") == ([cluster_job(before)] if adopts else [])


def cluster_job(steps: list[str]) -> str:
    return steps[0].partition(".")[0]


def test_a_daemon_without_its_state_ends_what_it_had(
    daemon: Daemon, cluster: Cluster, tmp_path: Path
) -> None:
    """Nobody could reach the old server any more, and it must not hold the room of the next one."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        before = cluster.steps()
        process.process.kill()
    (tmp_path / "state" / "state.json").unlink()
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        assert process.running()["a"]["cluster"]["step"] not in before
        assert cluster.steps() == [process.running()["a"]["cluster"]["step"]]


def test_srun_that_is_killed_with_all_of_it_loses_no_server(
    daemon: Daemon, cluster: Cluster
) -> None:
    """Slurm goes on with the step without srun; the daemon still serves it, and later ends it."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        kill_sruns()
        time.sleep(1)
        assert process.chat("a")[0] == 200
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        until(lambda: cluster.steps() == [])


def kill_sruns() -> None:
    """Kill all processes of srun at once, because one half would end the step for the other."""
    found = subprocess.run(("pgrep", "-x", "srun"), capture_output=True, text=True, check=True)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def test_a_launcher_that_is_killed_takes_its_server_along(daemon: Daemon, cluster: Cluster) -> None:
    """No server is left that nobody can reach."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        pid = process.chat("a")[1]["pid"]
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: process.running().get("a", {}).get("state") != "ready")
        until(lambda: not Path(f"/proc/{pid}").exists())
        wait_for(lambda: process.chat("a")[0] == 200)
        assert cluster.steps() == [process.running()["a"]["cluster"]["step"]]


def test_a_controller_that_does_not_answer_stops_no_request(
    daemon: Daemon, cluster: Cluster
) -> None:
    """Running models serve, sleep and wake; a model that must start waits for the controller."""
    with daemon({"a": stub(), "b": stub(), "c": stub()}) as process:
        assert process.chat("a")[0] == process.chat("b")[0] == 200
        cluster.signal("slurmctld", signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                assert process.chat("a")[0] == process.chat("b")[0] == 200
                time.sleep(0.2)
            assert process.ask("POST", "/api/models/unload/b")[0] == 200
        finally:
            cluster.signal("slurmctld", signal.SIGCONT)
        assert process.chat("c")[0] == 200


def test_a_node_that_is_gone_is_given_up_on(
    daemon: Daemon, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze gives the node up within a time limit, and the model starts on another node."""
    with daemon({"a": stub(timeouts={"silence": 3})}) as process:
        assert process.chat("a")[0] == 200
        node = process.running()["a"]["cluster"]["node"]
        link = f"lzv{node[1:]}"
        subprocess.run(("ip", "link", "set", link, "down"), check=True)
        try:
            wait_for(lambda: process.running().get("a", {}).get("state") != "ready", 60)
            assert process.chat("a")[0] == 200
            assert process.running()["a"]["cluster"]["node"] != node
        finally:
            subprocess.run(("ip", "link", "set", link, "up"), check=True)
    until(lambda: cluster.run("sinfo", "-h", "-t", "idle", "-o", "%D") == "3", 60)


def test_the_server_is_not_open_on_the_network_of_the_cluster(
    daemon: Daemon, cluster: Cluster
) -> None:
    """The server listens on its node alone; the entrance admits only holders of this life's key."""
    with daemon({"a": stub()}) as process:
        assert process.chat("a")[0] == 200
        row = process.running()["a"]
        address = cluster.address(int(row["cluster"]["node"][1:]))
        port = int(row["proxy"].rpartition(":")[2])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, port), 2)
        listening = entrances(cluster, int(row["cluster"]["node"][1:]))
        assert listening
        for one in listening:
            with socket.create_connection((address, one), 2) as stranger:
                stranger.settimeout(5)
                assert len(stranger.recv(1024)) == 16
                stranger.sendall(b"T" + bytes(48) + b"GET /sleep HTTP/1.1\r\n\r\n")
                assert nothing_comes(stranger)
        assert process.ask("GET", "/upstream/a/sleep")[0] == 403


def nothing_comes(connection: socket.socket) -> bool:
    """Whether a connection is closed without another byte."""
    try:
        return not connection.recv(1024)
    except ConnectionResetError:
        return True


def entrances(cluster: Cluster, node: int) -> list[int]:
    """Return the ports that are open on a node, except Slurm's own."""
    shown = subprocess.run(
        ("ip", "netns", "exec", f"lzn{node}", "ss", "-Hltn", "src", "0.0.0.0"),
        capture_output=True,
        text=True,
        check=True,
    )
    ports = [int(line.split()[3].rpartition(":")[2]) for line in shown.stdout.splitlines()]
    return [port for port in ports if port != 17818]


def test_a_stranger_on_the_port_is_not_taken_for_the_server(
    daemon: Daemon, cluster: Cluster, tmp_path: Path
) -> None:
    """If a stranger has the model's fixed port, the start fails and says so."""
    port = 18234
    script = tmp_path / "stranger.sh"
    script.write_text(f"#!/bin/sh\nexec python3 -I -S {STUB} --port {port}\n")
    cluster.run("sbatch", "-w", "n1", "--mem=100", "-o", "/dev/null", str(script))
    until(lambda: cluster.pids_on(1, f"--port {port}"))
    model = stub(proxy=f"http://127.0.0.1:{port}")
    model["cmd"] = model["cmd"].replace("${PORT}", str(port))
    with daemon({"a": model}, allocation={"sbatch": ["--nodelist=n1"]}) as process:
        status, said = process.chat("a")
        assert status == 502
        assert "cannot be listened on" in str(said)


def test_commands_run_on_the_node(daemon: Daemon, cluster: Cluster, tmp_path: Path) -> None:
    """cmdStop runs on the node, because the server that it speaks to is there."""
    said = tmp_path / "said"
    stop = f"sh -c 'hostname > {said}; kill ${{PORT}} 2>/dev/null; false'"
    with daemon({"a": stub(cmdStop=stop)}) as process:
        assert process.chat("a")[0] == 200
        node = process.running()["a"]["cluster"]["node"]
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        assert said.read_text().strip() == node


def test_many_ask_at_once_while_models_come_and_go(daemon: Daemon, cluster: Cluster) -> None:
    """All requests are served, and one job holds all models."""
    models = {name: stub() for name in ("a", "b", "c")}
    statuses: list[int] = []
    with daemon(models) as process:

        def ask(name: str) -> None:
            statuses.extend(process.chat(name)[0] for _ in range(5))

        asking = [threading.Thread(target=ask, args=(name,)) for name in models for _ in range(3)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert set(statuses) == {200}
        assert len(cluster.jobs("R", "PD")) == 1
        assert len(cluster.steps()) == 3
