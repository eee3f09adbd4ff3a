"""What decisions cost by themselves: who must leave, and whose turn it is, without any process."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from math import prod
from statistics import median
from typing import Any

import yaml

from configschema import parse
from supervisor.scheduling.placement import one_at_a_time, placement_of
from supervisor.scheduling.simulation import Durations, Simulation
from supervisor.scheduling.turns import Patience
from tests.bench.figures import Figure
from tests.bench.traffic_results import MILLI
from tests.supervisor.scheduling.test_simulation import zipf

NAMES = [f"m{number}" for number in range(12)]


def matrix(counts: tuple[int, ...]) -> Iterator[Figure]:
    """Tell how long it takes to find who must leave, as the sets grow; nothing is remembered."""
    models = {name: {"cmd": "x", "proxy": "http://h:9"} for name in NAMES}
    for count in counts:
        choose = random.Random(count)
        whole = {"models": models, "matrix": {"sets": sets_of(count, choose)}}
        solve: Any = placement_of(parse(yaml.safe_dump(whole, width=10**9)).config)
        took = median(solved(solve, choose) for _ in range(50))
        goal = "< 1" if count == 5000 else ""
        yield Figure(f"matrix of 12 models, {count:,} sets, 4 run", took * MILLI, "ms", goal)


def sets_of(count: int, choose: random.Random) -> dict[str, str]:
    """Return sets of five: half of them one by one, the others as a product of alternatives."""
    sets = {f"s{n}": " & ".join(choose.sample(NAMES, 5)) for n in range(count // 2)}
    factors = [choose.sample(NAMES, 6) for _ in range(4)]
    while len(sets) + prod(map(len, factors)) < count:
        factors.append(choose.sample(NAMES, 2))
    return {**sets, "product": " & ".join(f"({' | '.join(some)})" for some in factors)}


def solved(solve: Any, choose: random.Random) -> float:
    """Return the seconds for one question: who must leave for the first model."""
    running = frozenset(choose.sample(NAMES[1:], 4))
    began = time.perf_counter()
    solve.__wrapped__("m0", running)
    return time.perf_counter() - began


def simulation(count: int) -> Iterator[Figure]:
    """Play a trace of requests for 1,000 models, against the order of coming."""
    trace = zipf(count, 1000, 0.2)
    times = {arrival.model: Durations(start=10) for arrival in trace}
    for what, first_come in (("llamadoze", False), ("first come", True)):
        began = time.perf_counter()
        outcome = Simulation(times, one_at_a_time, Patience(), first_come).play(trace)
        took = time.perf_counter() - began
        waits = sorted(wait for some in outcome.waits.values() for wait in some)
        yield Figure(f"{count:,} requests, 1,000 models, {what}: swaps", outcome.activations)
        yield Figure("... wait, median", waits[len(waits) // 2], "s")
        yield Figure("... wait, 99th percentile", waits[int(len(waits) * 0.99)], "s")
        yield Figure("... played in", took, "s")


def measure(quick: bool = False) -> list[Figure]:
    """Measure all of it; quick is a look whether it works."""
    if quick:
        return [*matrix((100,)), *simulation(2000)]
    return [*matrix((100, 1000, 5000, 20_000, 100_000)), *simulation(100_000)]
