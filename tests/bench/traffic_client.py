"""A load generator against one port of this machine: one thread, plain sockets and epoll.

``python -m tests.bench.traffic_client requests --port P`` prints its figures as JSON; ``streams``,
``first-bytes`` and ``disconnects`` are the other loads. Times are in seconds. Connections are open
before the timing begins. Streams need `traffic_server`, whose tokens say when they were sent.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import os
import time
from collections.abc import Iterable, Sequence
from math import ceil, nan
from typing import Any

from tests.bench.traffic_exchange import Exchange, Loop, post

PATIENCE = 20.0  # seconds after a load's end until a missing answer is an error
STAGGER = 0.5  # seconds over which the streams begin
NOTICED = 2.0  # seconds that a server has to notice that a client disconnected
SILENCE = 0.1  # seconds until the client of a silent stream disconnects
TEXT = "Tell me a short story about a lighthouse. " * 21
Figures = dict[str, float]


def body_of(**more: object) -> bytes:
    """Return the body of a chat request, of about 1 KB."""
    messages = [{"role": "user", "content": TEXT}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 64, **more}).encode()


SMALL = body_of()


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else nan


def middle_and_tail(name: str, values: Sequence[float]) -> Figures:
    return {f"{name}_p50": percentile(values, 0.5), f"{name}_p99": percentile(values, 0.99)}


def requests(port: int, concurrency: int, seconds: float, body: bytes = SMALL) -> Figures:
    """Let clients repeat requests; a client without an answer reconnects."""
    latencies: list[float] = []
    errors = 0
    with Loop(port) as loop:
        began = time.monotonic()
        for one in [loop.open(post(body)) for _ in range(concurrency)]:
            one.begin()
        while loop.exchanges and time.monotonic() < began + seconds + PATIENCE:
            for one in loop.ready(1):
                now = one.read()
                if not one.over:
                    continue
                if one.failed or b'"usage"' not in one.body:
                    errors += 1
                else:
                    latencies.append(now - one.began)
                go_on(loop, one, began + seconds)
        took = time.monotonic() - began
        errors += len(loop.exchanges)
    return {
        **middle_and_tail("latency", latencies),
        "per_second": len(latencies) / took,
        "count": len(latencies),
        "errors": errors,
    }


def go_on(loop: Loop, one: Exchange, until: float) -> None:
    """Send the request again, unless the time is over."""
    if time.monotonic() >= until:
        loop.close(one)
        return
    if one.failed or one.answer.closes:
        loop.reopen(one)
    one.begin()


def streams(port: int, count: int, rate: float, seconds: float) -> Figures:
    """Read streams side by side, each of `rate` tokens a second for that many seconds."""
    chunks = round(rate * seconds)
    request = post(body_of(stream=True, chunks=chunks, rate=rate))
    stagger = min(STAGGER, seconds / 2)
    with Loop(port) as loop:
        waiting = [loop.open(request) for _ in range(count)]
        everybody = waiting.copy()
        began = time.monotonic()
        while loop.exchanges and (past := time.monotonic() - began) < seconds + PATIENCE:
            while waiting and past >= stagger * (1 - len(waiting) / count):
                waiting.pop().begin()
            for one in loop.ready(0.001 if waiting else 1):
                one.read_events()
                if one.over:
                    loop.close(one)
    whole = [one for one in everybody if one.ended and one.answer.done and len(one.sent) == chunks]
    full = (began + stagger, began + seconds)  # when all of them send
    return {**told(everybody, full), "errors": count - len(whole)}


def told(everybody: Sequence[Exchange], full: tuple[float, float]) -> Figures:
    """Return the delays, the times to first byte and first token, and the number of tokens."""
    delays = [[b - a for a, b in zip(one.sent, one.arrived, strict=True)] for one in everybody]
    arrived = [moment for one in everybody for moment in one.arrived]
    late = [delay for some in delays for delay in some[len(some) * 4 // 5 :]]
    return {
        **middle_and_tail("delay", [delay for some in delays for delay in some]),
        "late_p99": percentile(late, 0.99),
        **middle_and_tail("head", [one.head_at - one.began for one in everybody if one.head_at]),
        **middle_and_tail("event", [one.arrived[0] - one.began for one in everybody if one.sent]),
        "per_second": sum(full[0] <= moment < full[1] for moment in arrived) / (full[1] - full[0]),
        "count": len(arrived),
    }


def first_bytes(port: int, count: int) -> Figures:
    """Ask for short streams, one after the other on a kept connection."""
    request = post(body_of(stream=True, chunks=2, rate=200))
    heads: list[float] = []
    events: list[float] = []
    with Loop(port) as loop:
        one = loop.open(request)
        for _ in range(count):
            one.begin()
            read_to_end(loop, one)
            if one.ended:
                heads.append(one.head_at - one.began)
                events.append(one.arrived[0] - one.began)
            if one.failed or one.answer.closes:
                loop.reopen(one)
    return {
        **middle_and_tail("head", heads),
        **middle_and_tail("event", events),
        "count": len(events),
        "errors": count - len(events),
    }


def read_to_end(loop: Loop, one: Exchange) -> None:
    while not one.over:
        if not loop.ready(PATIENCE):
            one.failed = True
            return
        one.read_events()


def disconnects(port: int, server_port: int, count: int, silent: bool = False) -> Figures:
    """Disconnect from streams, and ask the model server when it noticed."""
    times = [leave(port, server_port, f"{os.getpid()}-{number}", silent) for number in range(count)]
    seen = [moment for moment in times if moment is not None]
    return {
        "noticed_p50": percentile(seen, 0.5),
        "noticed_max": max(seen, default=nan),
        "count": count,
        "errors": count - len(seen),
    }


def leave(port: int, server_port: int, name: str, silent: bool) -> float | None:
    """Disconnect from a stream; return the seconds until its server noticed."""
    asked = body_of(stream=True, chunks=1000, rate=100, silent=silent, name=name)
    with Loop(port) as loop:
        one = loop.open(post(asked))
        one.begin()
        until = one.began + (SILENCE if silent else NOTICED)
        while len(one.sent) < 3 and not one.over and time.monotonic() < until:
            for _ in loop.ready(until - time.monotonic()):
                one.read_events()
        left = time.monotonic()
        loop.close(one)
    while time.monotonic() < left + NOTICED:
        time.sleep(0.01)
        for noticed in noticed_by(server_port):
            if noticed["name"] == name:
                return float(noticed["time"]) - left
    return None


def noticed_by(server_port: int) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/disconnects")
        found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["disconnects"]
    return found


def options_of(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="A load against a port of this machine.")
    loads = parser.add_subparsers(required=True)
    kinds: dict[Any, dict[str, type]] = {
        requests: {"concurrency": int, "seconds": float},
        streams: {"count": int, "rate": float, "seconds": float},
        first_bytes: {"count": int},
        disconnects: {"server-port": int, "count": int},
    }
    for load, options in kinds.items():
        one = loads.add_parser(load.__name__.replace("_", "-"), help=load.__doc__)
        one.set_defaults(load=load)
        for name, kind in {"port": int, **options}.items():
            one.add_argument(f"--{name}", type=kind, required=True)
        if load is disconnects:
            one.add_argument("--silent", action="store_true", help="before the first token")
    return vars(parser.parse_args(arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    gc.disable()  # a pause of the generator's own would count as the target's
    options = options_of(arguments)
    load = options.pop("load")
    print(json.dumps(load(**options)))


if __name__ == "__main__":
    main()
