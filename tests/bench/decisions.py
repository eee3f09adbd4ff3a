"""What scheduling decisions cost without any process: which model leaves, and whose turn it is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from math import prod
from statistics import median
from typing import Any

import yaml

from configschema import parse
from supervisor.playing.outcome import Arrival
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.space import HOST, Space
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import Plan, one_at_a_time, placement_of
from supervisor.states.footprint import Footprint
from supervisor.states.snapshot import Costs, Need, Snapshot
from supervisor.states.table import State, Wish
from tests.bench.figures import Figure
from tests.bench.traffic_results import MILLI
from tests.supervisor.playing.test_simulation import zipf

GIB = 1 << 30
NAMES = [f"m{number}" for number in range(12)]


def matrix(counts: tuple[int, ...]) -> Iterator[Figure]:
    """Measure the time to find which models must leave, as the sets grow; nothing is cached."""
    models = {name: {"cmd": "x", "proxy": "http://h:9"} for name in NAMES}
    for count in counts:
        choose = random.Random(count)
        whole = {"models": models, "matrix": {"sets": sets_of(count, choose)}}
        solve: Any = placement_of(parse(yaml.safe_dump(whole, width=10**9)).config)
        took = median(solved(solve, choose) for _ in range(50))
        goal = "< 1" if count == 5000 else ""
        yield Figure(f"matrix of 12 models, {count:,} sets, 4 run", took * MILLI, "ms", goal)


def sets_of(count: int, choose: random.Random) -> dict[str, str]:
    """Return sets of five: half of them written out, the others as a product of alternatives."""
    sets = {f"s{n}": " & ".join(choose.sample(NAMES, 5)) for n in range(count // 2)}
    factors = [choose.sample(NAMES, 6) for _ in range(4)]
    while len(sets) + prod(map(len, factors)) < count:
        factors.append(choose.sample(NAMES, 2))
    return {**sets, "product": " & ".join(f"({' | '.join(some)})" for some in factors)}


def solved(solve: Any, choose: random.Random) -> float:
    """Return the seconds for one question: which models must leave for the first model."""
    running = frozenset(choose.sample(NAMES[1:], 4))
    began = time.perf_counter()
    solve.__wrapped__("m0", running)
    return time.perf_counter() - began


def memory() -> Figure:
    """Measure the time to find which models leave when 64 of them fill 8 GPUs."""
    times = [_by_memory(random.Random(seed)) for seed in range(50)]
    what = "by memory, 64 models on 8 GPUs, one more wanted"
    return Figure(what, median(times) * MILLI, "ms", "< 2")


def _by_memory(choose: random.Random) -> float:
    gpus = [f"GPU-{number}" for number in range(8)]
    sizes = [choose.randint(5, 12) * GIB for _ in range(64)]
    homes = [gpus[number % 8] for number in range(64)]
    whole = {
        gpu: sum(s for s, home in zip(sizes, homes, strict=True) if home == gpu) for gpu in gpus
    }
    models = {
        f"m{number}": Snapshot(
            model=f"m{number}",
            state=State.READY,
            wish=Wish.SERVE,
            can_sleep=choose.random() < 0.8,
            idle_since=-choose.uniform(0, 600),
            costs=Costs(start=choose.uniform(5, 90), sleep=2, wake=choose.uniform(0.2, 9), stop=1),
            need=Need(known=Footprint(gpus=(size,), host=GIB, gpus_asleep=(GIB,), lives=1)),
            gpus=(home,),
        )
        for number, (size, home) in enumerate(zip(sizes, homes, strict=True))
    }
    known = Footprint(gpus=(20 * GIB,), host=GIB, lives=1)
    models["wanted"] = Snapshot(model="wanted", need=Need(known=known))
    running = frozenset(models) - {"wanted"}
    plan = Plan(running=running, called=frozenset(), claimed=frozenset())
    began = time.perf_counter()
    room = ByMemory(models, Space(whole={**whole, HOST: 900 * GIB}), 0.0)
    assert room.of("wanted", plan)
    return time.perf_counter() - began


def simulation(count: int) -> Iterator[Figure]:
    """Play a trace of requests for 1,000 models, by llamadoze's order and by first come."""
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
    yield from simulation_by_memory(trace)


def simulation_by_memory(trace: list[Arrival]) -> Iterator[Figure]:
    """Play the same requests on 8 GPUs of 80 GiB."""
    choose = random.Random(1)
    sizes = {arrival.model: choose.choice([5, 8, 14, 20, 30, 45]) for arrival in trace}
    times = {
        name: Durations(
            start=10,
            need=Need(known=Footprint(gpus=(size * GIB,), gpus_asleep=(0,), host=GIB, lives=1)),
        )
        for name, size in sizes.items()
    }
    gpus = {f"GPU-{number}": 80 * GIB for number in range(8)}
    began = time.perf_counter()
    space = Space(whole={**gpus, HOST: 2000 * GIB})
    outcome = Simulation(times, space, Patience()).play(trace)
    took = time.perf_counter() - began
    yield Figure(f"{len(trace):,} requests, by memory on 8 GPUs: swaps", outcome.activations)
    yield Figure("... played in", took, "s", "< 60")


def measure(quick: bool = False) -> list[Figure]:
    """Measure everything; quick only checks that the measurement works."""
    if quick:
        return [*matrix((100,)), memory(), *simulation(2000)]
    return [*matrix((100, 1000, 5000, 20_000, 100_000)), memory(), *simulation(100_000)]
