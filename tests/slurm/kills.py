"""Random kills in a real Slurm: ``python -m tests.slurm.kills [TIMES] [SEED]``.

Each round kills the daemon, the launchers of its models, or `srun`, or the daemon with one of the
other two, while clients send requests. Afterwards the daemon and Slurm must name the same steps.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.slurm.cluster import Cluster, running, until, why_not_here
from tests.slurm.conftest import stub
from tests.system.daemon import Process, started, write

MODELS = ("a", "b", "own")
KINDS = ("daemon", "launcher", "srun", "daemon and launcher", "daemon and srun")
LONGEST_PAUSE = 1.5  # seconds between the first requests and the kill


def kill(kind: str, process: Process) -> None:
    """Kill the processes that the kind names, the daemon last."""
    if "launcher" in kind:
        for pid in found("-f", "^python3 -c import json"):
            _kill(pid)
    if "srun" in kind:
        for pid in found("-x", "srun"):
            _kill(pid)
    if "daemon" in kind:
        process.process.kill()
        process.process.wait()


def found(*how: str) -> list[int]:
    """Return the processes that pgrep finds."""
    said = subprocess.run(("pgrep", *how), capture_output=True, text=True, check=False)
    return [int(pid) for pid in said.stdout.split() if int(pid) != os.getpid()]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def ask(process: Process, stop: threading.Event) -> None:
    """Send requests to random models until `stop` is set."""
    while not stop.is_set():
        with suppress(OSError, ValueError):
            process.chat(random.choice(MODELS))


def named_by_both(process: Process, cluster: Cluster) -> bool:
    """Whether Slurm and the daemon name the same steps, and each job has a model."""
    rows = [row["cluster"] for row in process.running().values() if row["cluster"]["step"]]
    held = {row["job"] for row in rows}
    return {row["step"] for row in rows} == {*cluster.steps()} and held == {*cluster.jobs()}


def once(config: str, folder: Path, cluster: Cluster, kind: str) -> float:
    """Kill once; return the seconds until Slurm and the daemon name the same steps again."""
    arguments = ("--config", config, "--state-dir", str(folder / "state"))
    with started(*arguments, env=cluster.env) as process:
        stop = threading.Event()
        asking = [threading.Thread(target=ask, args=(process, stop)) for _ in range(3)]
        for one in asking:
            one.start()
        time.sleep(random.uniform(0.1, LONGEST_PAUSE))
        kill(kind, process)
        stop.set()
        if "daemon" not in kind:
            for one in asking:
                one.join()
            return _settled(process, cluster)
        for one in asking:
            one.join()
    with started(*arguments, env=cluster.env) as process:
        took = _settled(process, cluster)
        assert process.chat("a")[0] == 200
        process.process.kill()  # so that the next daemon finds something
    return took


def _settled(process: Process, cluster: Cluster) -> float:
    began = time.monotonic()
    until(lambda: named_by_both(process, cluster), 60)
    return time.monotonic() - began


def main(times: int, seed: int) -> None:
    if reason := why_not_here():
        sys.exit(reason)
    random.seed(seed)
    folder = Path(tempfile.mkdtemp(prefix="slurm-kills-"))
    worst: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with running(folder / "cluster") as cluster:
        os.environ.update(cluster.env)
        config = write(
            folder,
            clusters={"hpc": {}},
            allocations={"shared": {"gres": "gpu:1", "mem": "1G", "idle": 1}},
            models={
                "a": stub(),
                "b": stub(),
                "own": stub(**{"in": {"gres": "gpu:1", "mem": "500M", "idle": 1}}),
            },
            adopt=True,
            maxBackoff=0,
        )
        for number in range(times):
            kind = random.choice(KINDS)
            took = once(config, folder, cluster, kind)
            worst[kind].append(took)
            print(f"{number + 1:3} {kind:20} the same after {took:.2f}s", flush=True)
    for kind, all_of_it in worst.items():
        if all_of_it:
            print(f"{kind:20} {len(all_of_it):3} times, at most {max(all_of_it):.2f}s")


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "50", "1"][:2]))
