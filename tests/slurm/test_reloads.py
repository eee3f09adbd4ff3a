"""Models in a real Slurm whose settings or jobs change while they wait or run."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, until
from tests.slurm.conftest import Daemon, stub
from tests.system.daemon import Process, wait_for

pytestmark = pytest.mark.slurm

QUIET = ("-o", "/dev/null")


def reload(process: Process, folder: Path, old: str, new: str) -> None:
    """Replace words in the configuration file, and reload it."""
    (file,) = folder.glob("*.yaml")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: process.said("econfigur") or process.said("eload"))


def test_settings_that_change_while_a_model_is_queued_hold_when_it_runs(
    daemon: Daemon, cluster: Cluster, tmp_path: Path
) -> None:
    """The file may be reloaded often while a request waits for its job."""
    filled = cluster.run("sbatch", "--parsable", "-N3", "--exclusive", *QUIET, "--wrap", "sleep 60")
    until(lambda: cluster.jobs("R"))
    answers: list[int] = []
    with daemon({"a": stub(description="before")}) as process:
        asking = threading.Thread(target=lambda: answers.append(process.chat("a")[0]))
        asking.start()
        wait_for(lambda: bool(process.running().get("a", {}).get("queue")))
        reload(process, tmp_path, "before", "after")
        cluster.run("scancel", filled)
        asking.join(20)
        assert answers == [200]
        assert process.running()["a"]["description"] == "after"


def test_a_job_that_ended_unseen_is_no_failure_of_the_next_start(
    daemon: Daemon, cluster: Cluster
) -> None:
    """llamadoze seldom asks an idle Slurm, so it may miss the end; a request gets a new job."""
    with daemon({"a": stub()}, allocation={"idle": 60}) as process:
        assert process.chat("a")[0] == 200
        assert process.ask("POST", "/api/models/unload/a")[0] == 200
        (job,) = cluster.jobs("R")
        cluster.run("scancel", job)
        until(lambda: not cluster.jobs("R"))
        assert process.chat("a")[0] == 200
        assert cluster.jobs("R") != [job]
