"""What the daemon adds to the models' own time: ``make bench``.

Medians over several rounds against the stub model server, on this machine, now. Nothing here is a
test: a noisy machine gives other numbers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import trio
import yaml

from configschema import parse
from supervisor.scheduling.placement import one_at_a_time, placement_of
from supervisor.scheduling.simulation import Durations, Simulation
from supervisor.scheduling.turns import Patience
from tests.bench.load import alternating, one_beside_a_stream
from tests.proxy.daemon import stub
from tests.supervisor.scheduling.test_simulation import zipf
from tests.system.daemon import LLAMADOZE, Process, run, started, write

ROUNDS = 7
BODY = {"messages": [{"role": "user", "content": "hi"}]}


def first_byte(port: int, model: str) -> float:
    """Return the seconds from a request to its answer's first byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        began = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps({**BODY, "model": model}))
        reply = connection.getresponse()
        took = time.monotonic() - began
        text = reply.read()
        assert reply.status == 200, text
    return took


def row(what: str, value: float, unit: str, goal: str) -> None:
    print(f"{what:<58} {value:>9.2f} {unit:<4} {goal}")


@contextlib.contextmanager
def serving(maxWait: int = 10, **models: Any) -> Iterator[Process]:  # noqa: N803 -- as in the file
    with (
        tempfile.TemporaryDirectory() as folder,
        started("--config", write(Path(folder), models=models, maxWait=maxWait)) as daemon,
    ):
        yield daemon


def median(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    return statistics.median(measure() for _ in range(rounds))


def cold_starts() -> None:
    for ready in (0.3, 1.0, 3.0):
        with serving(a=stub("--ready-after", str(ready))) as daemon:

            def measure(daemon: Process = daemon) -> float:
                took = first_byte(daemon.port, "a")
                daemon.ask("POST", "/api/models/unload/a")
                return took

            took = median(measure, 5 if ready > 2 else ROUNDS)
        row(
            f"cold start, model ready {ready} s after its start: beyond that",
            (took - ready) * 1e3,
            "ms",
            "<= 50",
        )


def swaps() -> None:
    keys: dict[str, Any] = {"cmdSleep": "sleep 0.2", "cmdWake": "sleep 0.2"}
    with serving(a=stub(**keys), b=stub(**keys)) as daemon:
        for name in "ab":
            first_byte(daemon.port, name)
        names = iter("ab" * ROUNDS)

        def measure() -> float:
            time.sleep(0.05)  # a model that has just become idle is kept for a moment
            return first_byte(daemon.port, next(names))

        took = median(measure, 2 * ROUNDS)
    row("swap, sleep 0.2 s and wake 0.2 s: beyond their sum", (took - 0.4) * 1e3, "ms", "<= 40")


def verification() -> None:
    """Swap with and without all that proves a sleep, but for the token."""
    steps: dict[str, Any] = {
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep"}],
        "wakeEndpoints": [{"endpoint": "/wake_up"}],
        "verify": {"gpuMemory": False},
    }
    took = []
    for keys in (steps, {"sleep": "vllm", "verify": {"hostMemory": True}}):
        with serving(a=stub("--hold", "64", **keys), b=stub("--hold", "64", **keys)) as daemon:
            for name in "abab":
                first_byte(daemon.port, name)
            names = iter("ab" * 20)

            def measure(daemon: Process = daemon, names: Iterator[str] = names) -> float:
                time.sleep(0.1)
                return first_byte(daemon.port, next(names))

            took.append(median(measure, 40))
    row("verification of a swap, without a canary: added", (took[1] - took[0]) * 1e3, "ms", "< 20")


def warm() -> None:
    with serving(a=stub()) as daemon:
        pid = first_byte(daemon.port, "a")
        port = json.loads(_get(daemon.port, "/running"))["running"][0]["proxy"].rpartition(":")[2]
        through, direct = _pairs(daemon.port, int(port))
    assert pid
    row("warm request on a kept connection: added", (through - direct) * 1e6, "us", "")


def _pairs(port: int, server: int) -> tuple[float, float]:
    """Return the medians of a request through the daemon and straight to the server."""
    times: dict[int, list[float]] = {port: [], server: []}
    connections = {p: http.client.HTTPConnection("127.0.0.1", p) for p in times}
    for _ in range(500):
        for target, connection in connections.items():
            began = time.monotonic()
            connection.request("POST", "/v1/chat/completions", json.dumps({**BODY, "model": "a"}))
            connection.getresponse().read()
            times[target].append(time.monotonic() - began)
    for connection in connections.values():
        connection.close()
    return statistics.median(times[port]), statistics.median(times[server])


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


def at_rest() -> None:
    with serving(a=stub(), b=stub()) as daemon:
        first_byte(daemon.port, "a")
        pid = daemon.process.pid
        time.sleep(1)
        before = _cpu_seconds(pid)
        time.sleep(10)
        share = (_cpu_seconds(pid) - before) / 10
        with open(f"/proc/{pid}/status") as file:
            (memory,) = (int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    row("at rest, one model ready: memory", memory / 1024, "MiB", "< 60")
    row("at rest, one model ready: of a core", share * 100, "%", "< 0.2")


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_answer() -> None:
    """From the start of the command to the first answer, the model's 0.3 s taken off."""
    ready = 0.3
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), models={"a": stub("--ready-after", str(ready))})

        def measure() -> float:
            began = time.monotonic()
            with started("--config", file) as daemon:
                first_byte(daemon.port, "a")
                took = time.monotonic() - began
                daemon.end(signal.SIGTERM)
            return took

        took = median(measure)
    row("start of the command to the first answer: beyond the model", took - ready, "s", "< 0.6")


def check() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), models={f"m{n}": stub() for n in range(50)})

        def measure() -> float:
            began = time.monotonic()
            run("check", file)
            return time.monotonic() - began

        row("llamadoze check, 50 models", median(measure), "s", "< 0.3")


def queue() -> None:
    """The figures of a queue: shared swaps, a bounded wait."""
    quick: dict[str, Any] = {"cmdSleep": "sleep 0.2", "cmdWake": "sleep 0.2"}
    sleepers = {name: stub(**quick, concurrencyLimit=50) for name in "ab"}
    kinds: dict[str, tuple[dict[str, Any], float]] = {
        "start 0.5 s": ({"a": _slow(), "b": _slow()}, 5 * 0.55),
        "sleep and wake 0.2 s": (sleepers, 5 * (0.2 + 0.05) + 4 * 0.2),
    }
    for what, (models, ideal) in kinds.items():
        with serving(**models) as daemon:
            if models is sleepers:
                for name in "ab":
                    first_byte(daemon.port, name)
                    daemon.ask("POST", f"/api/models/sleep/{name}")
            before = _activations(daemon)
            took = trio.run(partial(alternating, daemon.port, 20, 4, 0.05))
            swaps = _activations(daemon) - before
        row(f"20 clients x 4 alternating, {what}: activations", swaps, "", "<= 5")
        row(f"... makespan over the ideal {ideal:.2f} s", took / ideal, "x", "<= 1.15")
    with serving(maxWait=2, a=_slow(), b=_slow()) as daemon:
        took = trio.run(partial(one_beside_a_stream, daemon.port, 0.2))
    row("one request beside a stream, maxWait 2 s, start 0.5 s", took, "s", "<= 2.8")


def _slow() -> dict[str, object]:
    return stub("--ready-after", "0.5", concurrencyLimit=50)


def _activations(daemon: Process) -> int:
    time.sleep(0.1)  # for the log to arrive
    said = daemon.events()
    return sum("Starting process" in line or "Executing cmdWake" in line for line in said)


def matrix() -> None:
    """How long it takes to find who must leave, as the sets grow; nothing is remembered."""
    names = [f"m{number}" for number in range(12)]
    models = {name: {"cmd": "x", "proxy": "http://h:9"} for name in names}
    for count in (100, 1000, 5000, 20_000, 100_000):
        choose = random.Random(count)
        sets = {f"s{n}": " & ".join(choose.sample(names, 5)) for n in range(count // 2)}
        factors = [choose.sample(names, 6) for _ in range(4)]
        while len(sets) + prod(map(len, factors)) < count:
            factors.append(choose.sample(names, 2))
        sets["product"] = " & ".join(f"({' | '.join(some)})" for some in factors)
        text = yaml.safe_dump({"models": models, "matrix": {"sets": sets}}, width=10**9)
        solve: Any = placement_of(parse(text).config)
        running = [frozenset(choose.sample(names[1:], 4)) for _ in range(50)]
        times = []
        for some in running:
            began = time.perf_counter()
            solve.__wrapped__("m0", some)
            times.append(time.perf_counter() - began)
        goal = "< 1" if count == 5000 else ""
        row(f"matrix of 12 models, {count} sets, 4 run", statistics.median(times) * 1e3, "ms", goal)


def simulation() -> None:
    """A trace of 100,000 requests for 1,000 models, against the order of coming."""
    trace = zipf(100_000, 1000, 0.2)
    times = {arrival.model: Durations(start=10) for arrival in trace}
    for what, first_come in (("llamadoze", False), ("first come", True)):
        began = time.perf_counter()
        outcome = Simulation(times, one_at_a_time, Patience(), first_come).play(trace)
        waits = sorted(wait for some in outcome.waits.values() for wait in some)
        row(f"100,000 requests, 1,000 models, {what}: swaps", outcome.activations, "", "")
        row("... wait, median", waits[len(waits) // 2], "s", "")
        row("... wait, 99th percentile", waits[int(len(waits) * 0.99)], "s", "")
        row("... played in", time.perf_counter() - began, "s", "")


def main() -> None:
    print(f"{LLAMADOZE}, Python {sys.version.split()[0]}, {os.cpu_count()} cores; medians")
    swapping = (cold_starts, swaps, verification)
    alone = (warm, at_rest, first_answer, check)
    for part in (*swapping, *alone, queue, matrix, simulation):
        part()


if __name__ == "__main__":
    main()
