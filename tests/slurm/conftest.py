"""One cluster for all tests, and a daemon for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, running, until, why_not_here
from tests.system.daemon import Process, started, write

STUB = Path(__file__).parents[1] / "peers" / "stub.py"
Daemon = Callable[..., AbstractContextManager[Process]]


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three nodes with one GPU each."""
    if reason := why_not_here():
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("slurm"), grace=8) as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, empty before the test; after the test, everything in it is cancelled."""
    monkeypatch.setenv("SLURM_CONF", whole_cluster.env["SLURM_CONF"])
    yield whole_cluster
    whole_cluster.run("scancel", "-f", "-u", "root")
    until(lambda: not whole_cluster.jobs("PD", "R", "CG"))


def stub(**keys: Any) -> dict[str, Any]:
    """Return a model in the allocation ``shared`` that sleeps as vLLM does."""
    options = keys.pop("options", "")
    return {
        "cmd": f"{sys.executable} -I -S {STUB} --port ${{PORT}} {options}".strip(),
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep?level=1"}],
        "wakeEndpoints": [{"endpoint": "/wake_up"}],
        "verify": {
            "asleep": [{"endpoint": "/is_sleeping", "holds": "is_sleeping"}],
            "awake": [{"endpoint": "/is_sleeping", "holds": "!is_sleeping"}],
        },
        "in": "shared",
        **keys,
    }


@pytest.fixture
def daemon(tmp_path: Path, cluster: Cluster) -> Daemon:
    """Start a daemon with models in the cluster; all daemons of a test share one state folder."""

    def start(models: dict[str, Any], **whole: Any) -> AbstractContextManager[Process]:
        allocation = {"gres": "gpu:1", "mem": "1G", "idle": 1, **whole.pop("allocation", {})}
        settings = {"queueTimeout": 30, **whole.pop("cluster", {})}
        config = write(
            tmp_path,
            clusters={"hpc": settings},
            allocations={"shared": allocation},
            models=models,
            **whole,
        )
        state = str(tmp_path / "state")
        return started("--config", config, "--state-dir", state, env=cluster.env)

    return start
