"""What forwarding costs, beside haproxy in front of the same model server, on this machine, now.

``python -m tests.bench.forwarding`` takes minutes, with ``--quick`` half a one. All figures are
medians over rounds; in each round every load is played against all targets, one after the other,
in turning order. Nothing here is a test: a noisy machine gives other numbers.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import isnan
from pathlib import Path

import proxy
from tests.bench.traffic_results import MEBI, MICRO, MILLI, Column, Results, show
from tests.bench.traffic_targets import (
    BENCHMARK,
    CORES,
    OTHERS,
    Target,
    haproxy,
    llamadoze,
    pin,
    play,
    worked_and_stolen,
)

ONE, MANY, MORE = "requests, 1 client", "requests, 16 clients", "requests, 32 clients"
FIRST = "first byte, 1 client"
STREAMS, CROWD = "64 streams of 100/s", "256 streams of 100/s"
LEFT, LEFT_SILENT = "left in mid-stream", "left before the first token"


def loads(seconds: float, quick: bool) -> dict[str, list[str]]:
    """Return what is played, as arguments of `tests.bench.traffic_client`."""

    def requests(clients: int) -> list[str]:
        return ["requests", "--concurrency", str(clients), "--seconds", str(seconds)]

    def streams(count: int) -> list[str]:
        length = "1" if quick else "2.5"
        return ["streams", "--count", str(count), "--rate", "100", "--seconds", length]

    leaving = ["disconnects", "--count", "5" if quick else "20"]
    return {
        ONE: requests(1),
        MANY: requests(16),
        MORE: requests(32),
        FIRST: ["first-bytes", "--count", "50" if quick else "200"],
        STREAMS: streams(64),
        CROWD: streams(256),
        LEFT: leaving,
        LEFT_SILENT: [*leaving, "--silent"],
    }


def request_columns() -> list[Column]:
    return [
        Column("1: p50 us", ONE, "latency_p50", MICRO),
        Column("added", ONE, "latency_p50", MICRO, added=True),
        Column("p99", ONE, "latency_p99", MICRO),
        Column("16: p50 us", MANY, "latency_p50", MICRO),
        Column("p99", MANY, "latency_p99", MICRO),
        Column("per s", MANY, "per_second"),
        Column("CPU us each", MANY, "cpu", MICRO),
        Column("32: per s", MORE, "per_second"),
    ]


def stream_columns(load: str) -> list[Column]:
    return [
        Column("delay p50 ms", load, "delay_p50", MILLI),
        Column("p99", load, "delay_p99", MILLI),
        Column("late p99", load, "late_p99", MILLI),
        Column("first byte added ms", load, "head_p50", MILLI, added=True),
        Column("tokens per s", load, "per_second"),
        Column("CPU us each", load, "cpu", MICRO),
    ]


def first_byte_columns() -> list[Column]:
    return [
        Column("first byte p50 ms", FIRST, "head_p50", MILLI),
        Column("added", FIRST, "head_p50", MILLI, added=True),
        Column("p99", FIRST, "head_p99", MILLI),
        Column("first token p50 ms", FIRST, "event_p50", MILLI),
        Column("added", FIRST, "event_p50", MILLI, added=True),
        Column("p99", FIRST, "event_p99", MILLI),
    ]


def leaving_columns() -> list[Column]:
    return [
        Column("mid-stream p50 ms", LEFT, "noticed_p50", MILLI),
        Column("max", LEFT, "noticed_max", MILLI),
        Column("before a token p50 ms", LEFT_SILENT, "noticed_p50", MILLI),
        Column("max", LEFT_SILENT, "noticed_max", MILLI),
    ]


def memory_columns() -> list[Column]:
    found = {"1 client": ONE, "32 clients": MORE, "256 streams": CROWD, "the end": LEFT_SILENT}
    return [Column(f"{name} MiB", load, "memory", MEBI) for name, load in found.items()]


TABLES = {
    "Requests, by clients": request_columns(),
    "Streams, the first byte for one client": first_byte_columns(),
    f"Streams, {STREAMS}": stream_columns(STREAMS),
    f"Streams, {CROWD}": stream_columns(CROWD),
    "From a client's leaving to the model server": leaving_columns(),
    "Memory after": memory_columns(),
}


def show_all(results: Results) -> None:
    for title, columns in TABLES.items():
        headings = ["", *(column.heading for column in columns)]
        rows = [[name, *(one.cell(results, name) for one in columns)] for name in results.targets]
        show(title, [headings, *(row for row in rows if {*row[1:]} != {"-"})])
    errors = results.errors()
    print("\nNot answered as a whole:", *(errors or ["none"]), sep="\n  ")


def show_goals(results: Results) -> None:
    """Print what is reached; what needs haproxy is left out without it."""
    rows = [
        [what, f"{value:.2f}", goal, "reached" if is_reached(value, goal) else "missed"]
        for what, value, goal in goals(results)
        if not isnan(value)
    ]
    show("Goals of llamadoze", [["", "value", "goal", ""], *rows])


def goals(results: Results) -> Iterator[tuple[str, float, str]]:
    """Yield what is measured, its value, and what that should be."""

    def own(load: str, key: str) -> float:
        return results.median(load, "llamadoze", key) * MILLI

    added = results.added(FIRST, "llamadoze", "head_p50") * MILLI
    yield "CPU of a request over haproxy's, 16 clients", results.ratio(MANY, "cpu"), "<= 14 x"
    yield f"CPU of a token over haproxy's, {STREAMS}", results.ratio(STREAMS, "cpu"), "<= 3.5 x"
    yield "first byte for one client, added at the median", added, "<= 1 ms"
    yield f"delay p99, {CROWD}", own(CROWD, "delay_p99"), "< 100 ms"
    for load in (LEFT, LEFT_SILENT):
        yield f"a client's leaving, {load}, p50", own(load, "noticed_p50"), "<= 5 ms"


def is_reached(value: float, goal: str) -> bool:
    relation, limit, _ = goal.split()
    return value < float(limit) or (relation == "<=" and value == float(limit))


def measure(targets: Sequence[Target], server: Target, options: argparse.Namespace) -> Results:
    results = Results([target.name for target in targets])
    for target in targets:  # once beforehand, for what is only done once
        play(["requests", "--concurrency", "16", "--seconds", "0.3"], target, server.port)
        play(["streams", "--count", "8", "--rate", "100", "--seconds", "0.3"], target, server.port)
    for number in range(options.rounds):
        for name, load in loads(options.seconds, options.quick).items():
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
            for target in targets[:: -1 if number % 2 else 1]:
                results.add(name, target.name, play(load, target, server.port))
    return results


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="default: 3; 1 with --quick")
    parser.add_argument("--seconds", type=float, help="of requests; default: 3; 0.5 with --quick")
    parser.add_argument("--quick", action="store_true", help="a look whether all of it works")
    parser.add_argument("--haproxy-threads", type=int, default=2, help="default: 2")
    parser.add_argument(
        "--also",
        type=Target.read,
        action="append",
        default=[],
        metavar="NAME=PORT:PID",
        help="another proxy; it must serve model m from the model server at --server-port",
    )
    parser.add_argument("--server-port", type=int, help="of the model server; default: any")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (0.5 if options.quick else 3)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    pin(os.getpid(), BENCHMARK)
    before = worked_and_stolen()
    with ExitStack() as stack:
        daemon, server = stack.enter_context(llamadoze(options.server_port))
        beside = stack.enter_context(haproxy(server.port, options.haproxy_threads))
        for other in options.also:
            pin(other.pid, OTHERS)
        others = [] if beside is None else [beside]
        python = f"Python {sys.version.split()[0]}"
        print(f"{Path(proxy.__file__).parent}, {python}, {len(CORES)} cores, {platform.release()}")
        if not others:
            print("haproxy is not installed: nothing is compared with it")
        results = measure([server, *others, daemon, *options.also], server, options)
    show_all(results)
    show_goals(results)
    worked, stolen = (after - was for after, was in zip(worked_and_stolen(), before, strict=True))
    print(f"\nThe host took {stolen / (worked + stolen):.0%} of the time that the cores had work.")


if __name__ == "__main__":
    main()
