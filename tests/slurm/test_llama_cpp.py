"""Real llama.cpp servers on the nodes of a real Slurm: they share an allocation by sleeping."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.weights import write_model
from tests.slurm.cluster import Cluster, until
from tests.slurm.conftest import Daemon
from tests.system.daemon import wait_for

pytestmark = pytest.mark.slurm
VERIFY = {
    "asleep": [{"endpoint": "/is_sleeping", "holds": "is_sleeping"}],
    "awake": [{"endpoint": "/is_sleeping", "holds": "!is_sleeping"}],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny random models."""
    files = [tmp_path_factory.mktemp("weights") / f"doze-{name}.gguf" for name in "ab"]
    for seed, file in enumerate(files):
        write_model(file, name=file.stem, seed=seed)
    return files


def model(file: Path) -> dict[str, Any]:
    return {
        "cmd": f"{sys.executable} -m proxy.demo.server --port ${{PORT}} --model {file}",
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep?level=1"}],
        "wakeEndpoints": [{"endpoint": "/wake_up"}],
        "verify": VERIFY,
        "in": "shared",
    }


def test_real_servers_share_an_allocation_and_outlive_their_daemon(
    daemon: Daemon, cluster: Cluster, weights: list[Path]
) -> None:
    """The servers stream, sleep and wake; after a kill, the next daemon finds them as they were."""
    models = {file.stem: model(file) for file in weights}
    allocation = {"mem": "3G"}
    with daemon(models, allocation=allocation, adopt=True) as process:
        for name in ("doze-a", "doze-b", "doze-a"):
            status, said = process.chat(name)
            assert status == 200
            assert said["usage"]["completion_tokens"] > 0
        assert process.running()["doze-b"]["state"] == "asleep"
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "doze-b", "stream": True, "max_tokens": 8, "messages": messages}
        with process.stream("/v1/chat/completions", body) as lines:
            events = [line for line in lines if line.startswith("data: {")]
        assert all(json.loads(line[len("data: ") :]) for line in events)
        assert len(events) > 3
        before = cluster.steps()
        process.process.kill()
    with daemon(models, allocation=allocation) as process:
        wait_for(lambda: len(process.running()) == 2)
        states = {name: row["state"] for name, row in process.running().items()}
        assert states == {"doze-a": "asleep", "doze-b": "ready"}
        assert process.chat("doze-a")[0] == process.chat("doze-b")[0] == 200
        assert cluster.steps() == before
    until(lambda: cluster.jobs() == [])
