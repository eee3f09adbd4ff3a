"""What the daemon adds to the models' own starts, sleeps and wakes.

The figures are medians over several rounds against the stub model server. This is no test: a noisy
machine gives other numbers.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import trio

from tests.bench.figures import Figure
from tests.bench.load import alternating, one_beside_a_stream
from tests.bench.peers import Peer, swapping
from tests.bench.traffic_results import MILLI
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, write

BODY = {"messages": [{"role": "user", "content": "hi"}]}
IDEAL = 5 * 0.55  # seconds of 20 clients that ask for two models in turns, start 0.5 s
PAUSE = 0.05  # seconds that a client waits before it asks for the other model


def first_byte(port: int, model: str) -> float:
    """Return the seconds from a request to its answer's first byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        began = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps({**BODY, "model": model}))
        reply = connection.getresponse()
        took = time.monotonic() - began
        text = reply.read()
        assert reply.status == 200, text
    return took


@contextmanager
def serving(maxWait: int = 10, **models: Any) -> Iterator[Process]:  # noqa: N803 -- as in the file
    with (
        tempfile.TemporaryDirectory() as folder,
        started("--config", write(Path(folder), models=models, maxWait=maxWait)) as daemon,
    ):
        yield daemon


def cold_starts(rounds: int) -> Iterator[Figure]:
    for ready in (0.3, 1.0, 3.0):
        with serving(a=stub("--ready-after", str(ready))) as daemon:
            times = [_cold(daemon) for _ in range(3 if ready > 2 else rounds)]
        beyond = (median(times) - ready) * MILLI
        what = f"cold start, model ready {ready} s after its start: beyond that"
        yield Figure(what, beyond, "ms", "<= 50")


def _cold(daemon: Process) -> float:
    took = first_byte(daemon.port, "a")
    daemon.ask("POST", "/api/models/unload/a")
    return took


def swapped(port: int, rounds: int, pause: float = 0) -> float:
    """Let one client ask for `a` and `b` in turns; return the median of its waits.

    Both have served and slept once before, because swaps differ while their costs are unknown.
    """
    names = cycle("ab")
    for _ in range(4):
        first_byte(port, next(names))
    return median(_after(pause, lambda: first_byte(port, next(names))) for _ in range(rounds))


def _after(pause: float, measure: Callable[[], float]) -> float:
    time.sleep(pause)
    return measure()


def swaps(rounds: int) -> Iterator[Figure]:
    """Measure swaps by one client that asks for the other model at once or after a pause."""
    for ready, count in ((0.3, rounds), (1.0, rounds), (3.0, 4)):
        with serving(a=_ready_after(ready), b=_ready_after(ready)) as daemon:
            beyond = (swapped(daemon.port, count) - ready) * MILLI
        yield Figure(
            f"swap by stop and start, ready {ready} s after it: beyond that", beyond, "ms", "<= 20"
        )
    for step, count in ((0.2, rounds), (1.5, 4)):
        keys: dict[str, Any] = {"cmdSleep": f"sleep {step}", "cmdWake": f"sleep {step}"}
        with serving(a=stub(**keys), b=stub(**keys)) as daemon:
            at_once = swapped(daemon.port, count)
            paused = swapped(daemon.port, count, PAUSE) if step < 1 else 0
        what = f"swap, sleep {step} s and wake {step} s"
        yield Figure(
            f"{what}, asked for at once: beyond both",
            (at_once - 2 * step) * MILLI,
            "ms",
            "<= 10" if step < 1 else "<= 40",
        )
        if paused:
            beyond = (paused - 2 * step) * MILLI
            yield Figure(
                f"... asked for after {PAUSE * MILLI:.0f} ms: beyond both", beyond, "ms", "<= 40"
            )


def verification(rounds: int) -> Figure:
    """Measure swaps with and without the verification of sleep, except for its canary token."""
    steps: dict[str, Any] = {
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep"}],
        "wakeEndpoints": [{"endpoint": "/wake_up"}],
        "verify": {"gpuMemory": False},
    }
    took = []
    for keys in (steps, {"sleep": "vllm", "verify": {"hostMemory": True}}):
        with serving(a=stub("--hold", "64", **keys), b=stub("--hold", "64", **keys)) as daemon:
            took.append(swapped(daemon.port, rounds))
    added = (took[1] - took[0]) * MILLI
    return Figure(
        "what proves a sleep and a wake, without a canary: added to a swap", added, "ms", "< 20"
    )


def queue() -> Iterator[Figure]:
    """Measure a queue: swaps that requests share, and a bounded wait."""
    quick: dict[str, Any] = {"cmdSleep": "sleep 0.2", "cmdWake": "sleep 0.2"}
    sleepers = {name: stub(**quick, concurrencyLimit=50) for name in "ab"}
    kinds: dict[str, tuple[dict[str, Any], float]] = {
        "start 0.5 s": ({"a": _slow(), "b": _slow()}, IDEAL),
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
            count = _activations(daemon) - before
        yield Figure(f"20 clients that ask 4 times in turns, {what}: swaps", count, "", "<= 5")
        yield Figure(
            f"... until the last answer, ideal {ideal:.2f} s", took / ideal, "x", "<= 1.15"
        )
    with serving(maxWait=2, a=_slow(), b=_slow()) as daemon:
        took = trio.run(partial(one_beside_a_stream, daemon.port, 0.2))
    yield Figure("one request beside a stream, maxWait 2 s, start 0.5 s", took, "s", "<= 2.8")
    with serving(a=sleepers["a"], b=sleepers["b"]) as daemon:
        for name in "ba":
            first_byte(daemon.port, name)
        took = trio.run(partial(one_beside_a_stream, daemon.port, 0.2))
    yield Figure("the same, maxWait 10 s, sleep and wake 0.2 s, never woken", took, "s", "< 2.5")


def _slow() -> dict[str, object]:
    return _ready_after(0.5, concurrencyLimit=50)


def _ready_after(seconds: float, **keys: Any) -> dict[str, object]:
    return stub("--ready-after", str(seconds), **keys)


def _activations(daemon: Process) -> int:
    time.sleep(0.1)  # for the log to arrive
    said = daemon.events()
    return sum("Starting process" in line or "Executing cmdWake" in line for line in said)


def of_peer(peer: Peer, rounds: int) -> Iterator[Figure]:
    """Measure what another proxy adds to a swap by stop and start, and to a crowd's requests."""
    for ready, count in ((0.3, rounds), (1.0, rounds), (3.0, 4)):
        with swapping(peer, ready) as port:
            beyond = (swapped(port, count) - ready) * MILLI
        what = f"{peer.name}: swap by stop and start, ready {ready} s after it: beyond that"
        yield Figure(what, beyond, "ms")
    with swapping(peer, 0.5) as port:
        took = trio.run(partial(alternating, port, 20, 4, 0.05))
    what = f"{peer.name}: 20 clients that ask 4 times in turns, start 0.5 s"
    yield Figure(f"{what}: until the last answer, ideal {IDEAL:.2f} s", took / IDEAL, "x")


def measure(quick: bool = False, peers: Sequence[Peer] = ()) -> list[Figure]:
    """Measure everything; quick only checks that the measurement works. Peers are other proxies."""
    rounds = 2 if quick else 7
    return [
        *cold_starts(rounds),
        *swaps(2 * rounds),
        verification(2 if quick else 40),
        *queue(),
        *(figure for peer in peers for figure in of_peer(peer, 2 * rounds)),
    ]
