"""What forwarding costs, beside haproxy and other proxies in front of the same model server.

All figures are medians over rounds. In each round every load is played against all targets, one
after the other, in alternating order. This is no test: a noisy machine gives other numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from tests.bench.peers import Peer, running
from tests.bench.traffic_results import Results
from tests.bench.traffic_tables import loads
from tests.bench.traffic_targets import (
    BENCHMARK,
    Target,
    haproxy,
    llamadoze,
    pin,
    play,
    worked_and_stolen,
)

ONCE = (
    ["requests", "--concurrency", "16", "--seconds", "0.3"],
    ["streams", "--count", "8", "--rate", "100", "--seconds", "0.3"],
)
"""Played first, so that work that is done only once does not count."""


@attrs.frozen
class Forwarding:
    """The figures of forwarding.

    Attributes:
        results: by load and target.
        stolen: the share of the cores' busy time that the host took from them.
    """

    results: Results
    stolen: float


def measure(peers: Sequence[Peer], rounds: int, seconds: float, quick: bool) -> Forwarding:
    """Measure all targets in turns.

    Args:
        peers: other proxies, which this function starts and ends.
        rounds: of each load.
        seconds: of each load of requests.
        quick: only check that the measurement works.
    """
    pin(os.getpid(), BENCHMARK)
    before = worked_and_stolen()
    with ExitStack() as stack:
        daemon, server = stack.enter_context(llamadoze())
        beside = stack.enter_context(haproxy(server.port, threads=2))
        others = [stack.enter_context(running(peer)) for peer in peers]
        targets = [server, *([] if beside is None else [beside]), daemon, *others]
        results = play_all(targets, rounds, loads(seconds, quick))
    worked, stolen = (after - was for after, was in zip(worked_and_stolen(), before, strict=True))
    return Forwarding(results, stolen / (worked + stolen))


def play_all(targets: Sequence[Target], rounds: int, played: dict[str, list[str]]) -> Results:
    results = Results([target.name for target in targets])
    for target in targets:
        for load in ONCE:
            play(load, target)
    for number in range(rounds):
        for name, load in played.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            for target in targets[:: -1 if number % 2 else 1]:
                results.add(name, target.name, play(load, target))
    return results
