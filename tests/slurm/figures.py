"""What a place in a real Slurm costs: ``python -m tests.slurm.figures``.

- a request through the entrance, compared with one to the same server straight over the network;
- a swap by sleep within an allocation, beyond the servers' own sleep and wake;
- a cold start in an allocation that runs, and in a new one, beyond Slurm's own time;
- requests while Slurm's controller is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from configschema import Entrance
from configschema.keys.fields import Secret
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.upstream import Upstream
from tests.slurm.cluster import Cluster, running, until, why_not_here
from tests.slurm.conftest import STUB, stub
from tests.system.daemon import started, write

REQUESTS = 400
SWAPS = 30
STARTS = 6
SILENCE = 30.0  # seconds
FORWARD = Path(__file__).with_name("open_to_all.py")


def median_ms(values: list[float]) -> str:
    """Return the median and the 90th percentile in milliseconds."""
    ordered = sorted(1000 * value for value in values)
    middle, high = statistics.median(ordered), ordered[len(ordered) * 9 // 10]
    return f"p50 {middle:8.3f} ms   p90 {high:8.3f} ms"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def exchanges(upstream: Upstream) -> list[float]:
    """Return the seconds of small requests, one after the other, on kept connections."""
    body = b'{"messages": []}'
    found = []
    for _ in range(REQUESTS):
        request = Request(
            method=b"POST",
            target=b"/v1/chat/completions",
            headers=[(b"host", b"x"), (b"content-type", b"application/json")],
            body=body,
        )
        began = time.perf_counter()
        with await upstream.exchange(request) as response:
            while await response.read():
                pass
        found.append(time.perf_counter() - began)
    return found[REQUESTS // 10 :]


async def by_both_ways(direct: Origin, through: Origin) -> tuple[list[float], list[float]]:
    """Return the seconds of requests sent straight and through the entrance, in turns."""
    straight, around = Upstream(direct), Upstream(through)
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(4):
        found[0].extend(await exchanges(straight))
        found[1].extend(await exchanges(around))
    straight.close()
    around.close()
    return found


@contextmanager
def daemon(folder: Path, cluster: Cluster, **more: Any) -> Iterator[Any]:
    config = write(
        folder,
        clusters={"hpc": {}},
        allocations={"shared": {"gres": "gpu:1", "mem": "1G", "idle": 0}},
        **more,
    )
    with started("--config", config, "--state-dir", f"{folder}/state", env=cluster.env) as process:
        yield process


def requests(folder: Path, cluster: Cluster) -> None:
    """Compare the entrance with a port that is open to the network."""
    open_stub = stub()
    open_stub["cmd"] = open_stub["cmd"].replace(str(STUB), str(FORWARD))
    with daemon(folder, cluster, models={"a": open_stub}) as process:
        assert process.chat("a")[0] == 200
        row = process.running()["a"]
        state = (folder / "state/state.json").read_text()

        handle = json.loads(state)["models"][0]["handle"]
        entrance = Entrance(handle["address"], handle["entrance"], Secret(handle["key"]))
        direct = Origin(handle["address"], handle["port"])
        through = Origin("127.0.0.1", handle["port"], entrance=entrance)
        straight, around = trio.run(by_both_ways, direct, through)
        print(f"a request, by the network       {median_ms(straight)}")
        print(f"a request, by the entrance      {median_ms(around)}")
        added = statistics.median(around) - statistics.median(straight)
        print(f"added by the entrance at p50    {1000 * added:.3f} ms (wanted: at most 0.3 ms)")
        assert row["cluster"]["node"]


def swaps(folder: Path, cluster: Cluster) -> None:
    """Measure swaps within an allocation; the stubs themselves sleep and wake in no time."""
    with daemon(folder, cluster, models={"a": stub(), "b": stub()}) as process:
        for name in "ab":
            assert process.chat(name)[0] == 200
        took = [timed(partial(process.chat, name)) for name in "ab" * (SWAPS // 2)]
        alone = [timed(lambda: process.chat("b")) for _ in range(SWAPS)]
        print(f"a swap by sleep, as a client    {median_ms(took)}")
        beyond = statistics.median(took) - statistics.median(alone)
        print(f"beyond a request without one    {1000 * beyond:.1f} ms (wanted: at most 60 ms)")


def starts(folder: Path, cluster: Cluster) -> None:
    """Measure cold starts, and how long Slurm itself takes for a job and a step."""
    own = []
    for _ in range(STARTS):
        began = time.perf_counter()
        job = cluster.run(
            "sbatch", "--parsable", "--gres=gpu:1", "-o", "/dev/null", "--wrap=sleep 60"
        )
        while cluster.run("squeue", "-h", "-j", job, "-o", "%T") != "RUNNING":
            pass
        cluster.run("srun", "-Q", f"--jobid={job}", "--overlap", "true")
        own.append(time.perf_counter() - began)
        cluster.run("scancel", job)
        until(lambda: not cluster.jobs("PD", "R", "CG"))
    print(f"Slurm's own: a job and a step   {median_ms(own)}")
    whole, step = [], []
    with daemon(folder, cluster, models={"a": stub(), "b": stub()}) as process:
        for _ in range(STARTS):
            whole.append(timed(lambda: process.chat("a")))
            step.append(timed(lambda: process.chat("b")))
            for name in "ab":
                assert process.ask("POST", f"/api/models/unload/{name}")[0] == 200
            until(lambda: not cluster.jobs("PD", "R", "CG"))
    print(f"a cold start, with its job      {median_ms(whole)}")
    print(f"a cold start in a job that runs {median_ms(step)}")
    beyond = statistics.median(whole) - statistics.median(own)
    print(f"beyond Slurm's own              {beyond:.3f} s (wanted: at most 1 s)")


def silence(folder: Path, cluster: Cluster) -> None:
    """Stop Slurm's controller for a while, and send requests that swap models meanwhile."""
    with daemon(folder, cluster, models={"a": stub(), "b": stub()}) as process:
        for name in "ab":
            assert process.chat(name)[0] == 200
        cluster.signal("slurmctld", signal.SIGSTOP)
        statuses: list[int] = []
        longest, deadline = 0.0, time.monotonic() + SILENCE
        while time.monotonic() < deadline:
            began = time.monotonic()
            statuses.append(process.chat("ab"[len(statuses) % 2])[0])
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
        cluster.signal("slurmctld", signal.SIGCONT)
        failed = sum(status != 200 for status in statuses)
        print(f"slurmctld stopped for {SILENCE:g} s: {len(statuses)} requests, each with a swap")
        print(f"failed: {failed} (wanted: 0); the longest took {1000 * longest:.0f} ms")


def main() -> None:
    if reason := why_not_here():
        sys.exit(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-figures-"))
    with running(folder / "cluster") as cluster:
        os.environ.update(cluster.env)
        for measure in (requests, swaps, starts, silence):
            own = folder / measure.__name__
            own.mkdir()
            measure(own, cluster)


if __name__ == "__main__":
    main()
