"""Allocations of a real Slurm: what is held for models, which models share it, when it is freed."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, until
from tests.slurm.conftest import STUB, Daemon, stub
from tests.system.daemon import Process, wait_for

pytestmark = pytest.mark.slurm


def test_two_models_share_a_gpu_by_sleeping(daemon: Daemon, cluster: Cluster) -> None:
    """Both models are steps of one job, so a wake does not wait in Slurm's queue."""
    with daemon({"a": stub(), "b": stub()}) as process:
        for name in ("a", "b", "a", "b"):
            assert process.chat(name)[0] == 200
        assert len(cluster.jobs()) == 1
        rows = process.running()
        assert rows["a"]["state"] == "asleep"
        assert rows["b"]["state"] == "ready"
        assert {rows[name]["cluster"]["step"] for name in "ab"} == {*cluster.steps()}
        began = time.monotonic()
        assert process.chat("a")[0] == 200
        assert time.monotonic() - began < 0.5


def test_a_model_with_an_allocation_of_its_own_runs_beside_them(
    daemon: Daemon, cluster: Cluster
) -> None:
    """The model runs on another node, which llamadoze finds by itself."""
    own = stub(**{"in": {"gres": "gpu:1", "mem": "500M", "idle": 0}})
    with daemon({"a": stub(), "own": own}) as process:
        assert process.chat("a")[0] == process.chat("own")[0] == 200
        rows = process.running()
        assert rows["a"]["state"] == rows["own"]["state"] == "ready"
        assert rows["a"]["cluster"]["node"] != rows["own"]["cluster"]["node"]
        assert process.ask("POST", "/api/models/unload/own")[0] == 200
        until(lambda: len(cluster.jobs()) == 1)


def test_an_allocation_is_given_back_when_nobody_is_in_it(daemon: Daemon, cluster: Cluster) -> None:
    """llamadoze keeps the job while a model sleeps in it, and ends it after its idle seconds."""
    with daemon({"a": stub(), "b": stub()}) as process:
        assert process.chat("a")[0] == process.chat("b")[0] == 200
        assert process.ask("POST", "/api/models/unload/b")[0] == 200
        assert process.ask("POST", "/api/models/sleep/a")[0] in (200, 409)
        time.sleep(2)
        assert len(cluster.jobs()) == 1
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        until(lambda: not cluster.jobs())


def test_all_of_it_is_given_back_when_the_daemon_ends(daemon: Daemon, cluster: Cluster) -> None:
    """When the daemon ends, llamadoze also cancels the jobs that still wait."""
    own = {"gres": "gpu:1", "mem": "500M"}
    names = [f"m{number}" for number in range(4)]  # one more than there are GPUs
    with daemon({name: stub(**{"in": own}) for name in names}) as process:
        asking = [threading.Thread(target=_ask, args=(process, name)) for name in names]
        for one in asking:
            one.start()
        wait_for(lambda: len(cluster.jobs("R")) == 3 and len(cluster.jobs("PD")) == 1)
        process.end(limit=30)
        for one in asking:
            one.join()
    assert cluster.jobs("R", "PD") == []


def test_who_waits_in_the_queue_is_told_why(daemon: Daemon, cluster: Cluster) -> None:
    """The stream and /running give Slurm's reason; when the client disconnects, the job ends."""
    cluster.run("sbatch", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 60")
    until(lambda: cluster.jobs("R"))
    with daemon({"a": stub()}, sendLoadingState=True) as process:
        said: list[str] = []

        def ask() -> None:
            body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            with process.stream("/v1/chat/completions", body) as lines:
                for line in lines:
                    said.append(line)
                    if "Resources" in line:
                        return

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: bool(process.running()["a"]["queue"]))
        assert process.running()["a"]["state"] == "queued"
        wait_for(lambda: "Resources" in (process.running()["a"]["queue"] or ""))
        asking.join(10)
        assert "queued" in "".join(said)
        until(lambda: not cluster.jobs("PD"))  # the client has disconnected
        assert "a" not in process.running()


def test_the_queue_has_a_limit(daemon: Daemon, cluster: Cluster) -> None:
    """The client gets the reason, and nothing stays in Slurm's queue."""
    cluster.run("sbatch", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 60")
    until(lambda: cluster.jobs("R"))
    with daemon({"a": stub()}, cluster={"queueTimeout": 1}) as process:
        status, said = process.chat("a")
        assert status == 502
        assert "queueTimeout" in str(said)
        assert "Slurm's queue" in str(said)
        until(lambda: not cluster.jobs("PD"))


def test_what_slurm_refuses_is_told_at_once(daemon: Daemon) -> None:
    """The client gets Slurm's own words."""
    with daemon({"a": stub()}, cluster={"partition": "none-such"}) as process:
        status, said = process.chat("a")
        assert status == 502
        assert "invalid partition" in str(said).lower()


def test_the_next_allocation_is_asked_for_before_the_first_ends(
    daemon: Daemon, cluster: Cluster
) -> None:
    """The models move to the next allocation, and no request fails."""
    allocation = {"time": "1", "renew": 57}
    with daemon({"a": stub()}, allocation=allocation) as process:
        assert process.chat("a")[0] == 200
        first = process.running()["a"]["cluster"]["job"]
        answers = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answers.append(process.chat("a")[0])
            row = process.running().get("a")
            if row and row["state"] == "ready" and row["cluster"]["job"] != first:
                break
            time.sleep(0.1)
        assert process.running()["a"]["cluster"]["job"] != first
        assert set(answers) == {200}
        until(lambda: first not in cluster.jobs())


@pytest.mark.parametrize(
    ("program", "delay", "status"), [("stub.py", 30, 502), ("stubborn.py 6", 5, 200)]
)
def test_a_preempted_model_leaves_in_order_and_comes_back(
    daemon: Daemon, cluster: Cluster, program: str, delay: int, status: int
) -> None:
    """Slurm sends SIGTERM to the server, too. Only a server that lives on ends its requests."""
    command = f"{sys.executable} -I -S {STUB.parent}/{program} --port ${{PORT}}"
    with daemon({"a": stub(cmd=command)}) as process, ThreadPoolExecutor(1) as clients:
        assert process.chat("a")[0] == 200
        (job,) = cluster.jobs()
        answer = clients.submit(process.chat, "a", delay=delay)
        wait_for(lambda: process.running()["a"]["in_flight"] == 1)
        cluster.run(
            *("sbatch", "-p", "urgent", "-N3", "--exclusive", "-o", "/dev/null"),
            *("--wrap", "sleep 3"),
        )
        assert answer.result()[0] == status
        wait_for(lambda: process.running().get("a", {}).get("state") != "ready", 20)
        until(lambda: job not in cluster.jobs())
        assert process.chat("a")[0] == 200
        assert process.running()["a"]["failures"] == 0


def _ask(process: Process, name: str) -> None:
    """Send a request to a daemon that may end meanwhile."""
    with suppress(OSError):
        process.chat(name)


def test_models_share_a_gpu_as_long_as_they_fit(
    daemon: Daemon, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `router.use: memory`, the launcher on the node measures what models hold."""
    stand_in = Path(__file__).parents[1] / "peers" / "nvml"
    (tmp_path / "gpu").mkdir()
    monkeypatch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path / "gpu"))
    monkeypatch.setenv("CUDA_STAND_IN_GPUS", "24")
    models = {name: stub(options="--gpu 10240 --gpu-rest 512") for name in ("a", "b", "c")}
    routing = {"router": {"use": "memory"}}
    with daemon(models, routing=routing) as process:
        for name in ("a", "b", "c", "a", "b", "c"):
            assert process.chat(name)[0] == 200
        rows = process.running()
        assert len(cluster.jobs()) == 1
        states = sorted(row["state"] for row in rows.values())
        assert states == ["asleep", "ready", "ready"]
        assert rows["a"]["room"]["awake"]["gpus"] == [10240 << 20]
        assert rows["a"]["gpus"] == ["GPU-00000000-0000-0000-0000-000000000000"]


def test_sleepers_have_the_memory_of_their_allocation(daemon: Daemon, cluster: Cluster) -> None:
    """If sleepers need more, llamadoze stops the least valuable; Slurm would end the whole job."""
    kept = [{"endpoint": "/keeps-it-all"}]
    keys = {"sleepEndpoints": kept, "wakeEndpoints": kept, "verify": {}}
    models = {name: stub(options="--hold 120", **keys) for name in ("a", "b", "c")}
    with daemon(models, allocation={"mem": "400M"}) as process:
        for name in ("a", "b", "c"):
            assert process.chat(name)[0] == 200
        wait_for(lambda: len(process.running()) == 2)
        assert process.said("mem of allocation shared has room for")
        assert process.chat("a")[0] == 200
