"""The loads of the benchmark, the tables of their figures, and their goals."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.figures import Figure, number, table
from tests.bench.traffic_results import MEBI, MICRO, MILLI, OURS, Column, Results

ONE, MANY, MORE = "requests, 1 client", "requests, 16 clients", "requests, 32 clients"
FIRST = "first byte, 1 client"
STREAMS, CROWD = "64 streams of 100/s", "256 streams of 100/s"
LEFT, LEFT_SILENT = "left in mid-stream", "left before the first token"


def loads(seconds: float, quick: bool) -> dict[str, list[str]]:
    """Return the loads that are played, as arguments of `tests.bench.traffic_client`."""

    def requests(clients: int) -> list[str]:
        return ["requests", "--concurrency", str(clients), "--seconds", str(seconds)]

    def streams(count: int) -> list[str]:
        length = "1" if quick else "2.5"
        return ["streams", "--count", str(count), "--rate", "100", "--seconds", length]

    leaving = ["disconnects", "--count", "5" if quick else "10"]
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
        Column("added", ONE, "latency_p50", MICRO, "added"),
        Column("p99", ONE, "latency_p99", MICRO),
        Column("16: p50 us", MANY, "latency_p50", MICRO),
        Column("p99", MANY, "latency_p99", MICRO),
        Column("per s", MANY, "per_second"),
        Column("CPU us each", MANY, "cpu", MICRO),
        Column("x haproxy", MANY, "cpu", of="times"),
        Column("32: per s", MORE, "per_second"),
    ]


def stream_columns(load: str) -> list[Column]:
    return [
        Column("delay p50 ms", load, "delay_p50", MILLI),
        Column("p99", load, "delay_p99", MILLI),
        Column("late p99", load, "late_p99", MILLI),
        Column("first byte added: p50 ms", load, "head_p50", MILLI, "added"),
        Column("p99", load, "head_p99", MILLI, "added"),
        Column("tokens per s", load, "per_second"),
        Column("CPU us each", load, "cpu", MICRO),
        Column("x haproxy", load, "cpu", of="times"),
    ]


def first_byte_columns() -> list[Column]:
    return [
        Column("first byte p50 ms", FIRST, "head_p50", MILLI),
        Column("added", FIRST, "head_p50", MILLI, "added"),
        Column("p99", FIRST, "head_p99", MILLI),
        Column("first token p50 ms", FIRST, "event_p50", MILLI),
        Column("added", FIRST, "event_p50", MILLI, "added"),
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


def tables(results: Results) -> Iterator[str]:
    """Yield each table as text."""
    for title, columns in TABLES.items():
        headings = ["", *(column.heading for column in columns)]
        rows = [[name, *(one.cell(results, name) for one in columns)] for name in results.targets]
        yield table(title, [headings, *(row for row in rows if {*row[1:]} != {"-"})])
    if len(results.targets) > results.targets.index(OURS) + 1:
        yield beside_others(results)


def beside_others(results: Results) -> str:
    """Return a table of llamadoze's CPU against that of each other proxy."""
    headings = {"a request": MANY, f"a token, {STREAMS}": STREAMS, f"a token, {CROWD}": CROWD}
    rows = [
        [
            f"over {name}",
            *(number(results.ratio(load, "cpu", OURS, name)) for load in headings.values()),
        ]
        for name in results.targets[results.targets.index(OURS) + 1 :]
    ]
    return table("CPU of llamadoze", [["", *headings], *rows])


def goals(results: Results) -> Iterator[Figure]:
    """Yield each measured figure with its goal."""

    def own(load: str, key: str) -> float:
        return results.median(load, OURS, key) * MILLI

    def added(load: str, key: str) -> float:
        return results.added(load, OURS, key) * MILLI

    times = "x haproxy"
    yield Figure("CPU of a small request, 16 clients", results.ratio(MANY, "cpu"), times, "<= 5.8")
    yield Figure(f"CPU of a token, {STREAMS}", results.ratio(STREAMS, "cpu"), times, "<= 2.0")
    yield Figure(f"CPU of a token, {CROWD}", results.ratio(CROWD, "cpu"), times, "<= 1.8")
    yield Figure(
        "first byte for one client, added at p50", added(FIRST, "head_p50"), "ms", "<= 0.25"
    )
    yield Figure(f"first byte, {CROWD}, added at p99", added(CROWD, "head_p99"), "ms", "<= 60")
    yield Figure(f"delay of a token, {CROWD}, p99", own(CROWD, "delay_p99"), "ms", "< 100")
    for load in (LEFT, LEFT_SILENT):
        yield Figure(f"a client {load}: known at p50", own(load, "noticed_p50"), "ms", "<= 5")
