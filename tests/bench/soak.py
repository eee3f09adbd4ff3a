"""A thousand swaps among eight models, with clients that stream or disconnect, and faults.

``make soak`` runs it. The daemon runs in its own process. Half of the models are behind a wrapper
or in a container of the stand-in engine. At the end, no request, process, container or descriptor
may be left, memory must be flat, and a fault must explain each error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import psutil
import trio

from tests.conftest import STUB, processes_with, stub_command
from tests.peers.client import Client, Reply
from tests.peers.engine import Engine, engine_in
from tests.system.daemon import Process, started, write

PLAIN = ("m1", "m2", "m3", "m4")
WRAPPED = ("session", "shell", "container", "container-without-sleep")
MODELS = (*PLAIN, *WRAPPED)
FAULTS = {
    "/sleep": [{"status": 404}, {"status": 500}, {"keep": True}, {"hang": True}, {"close": True}],
    "/wake_up": [{"status": 500}, {"keep": True}, {"hang": True}, {"close": True}],
    "/v1/chat/completions": [{"status": 500}, {"close": True}, {"delay": 0.3}],
}
FATAL = [{"exit": 3}, {"delay": 0.2}]
FLAT = 4.0  # MB that memory may grow in a thousand swaps
WARM = 300  # swaps after which caches and heap have their full size
ENOUGH = 20  # measurements for a slope
PATIENCE = 60.0  # seconds for a client's answer
Numbers = dict[str, float]


@attrs.define(eq=False)
class Soak:
    """What the clients have seen, and what was measured."""

    daemon: Process
    outcomes: Counter[str] = attrs.field(factory=Counter)
    unexplained: list[str] = attrs.field(factory=list)
    samples: list[Numbers] = attrs.field(factory=list)
    over: trio.Event = attrs.field(factory=trio.Event)

    async def client(self, number: int) -> None:
        """Send requests in a loop; one in ten disconnects before its answer."""
        chance = random.Random(number)
        while not self.over.is_set():
            body: dict[str, Any] = {"model": chance.choice(MODELS)}
            if chance.random() < 0.5:
                body |= {"stream": True, "chunks": chance.randrange(1, 8), "pause": 0.005}
            if chance.random() < 0.1:
                with trio.move_on_after(chance.random() * 0.2):
                    await self.ask(body)
                self.outcomes["left early"] += 1
                continue
            try:
                with trio.fail_after(PATIENCE):
                    self.judge(body, await self.ask(body))
            except (trio.TooSlowError, OSError, AssertionError) as error:
                self.unexplained.append(f"no answer: {error!r}")

    async def ask(self, body: dict[str, Any]) -> Reply:
        client = await Client.connect(self.daemon.port)
        async with client.stream:
            data = json.dumps(body).encode()
            await client.send("POST", "/v1/chat/completions", data)
            return await client.receive()

    def judge(self, body: dict[str, Any], reply: Reply) -> None:
        """Count an answer; a fault must explain a wrong one."""
        text = reply.body.decode(errors="replace")
        if reply.status == 200 and "chunks" not in body:
            self.outcomes["answer"] += 1
        elif reply.status == 200 and text.count("data: ") == body["chunks"]:
            self.outcomes["stream"] += 1
        elif _is_explained(text):
            self.outcomes[f"{reply.status} by a fault"] += 1
        else:
            self.unexplained.append(f"{reply.status} {text[:200]}")

    def measure(self) -> Numbers:
        """Note the present state of the daemon."""
        process = psutil.Process(self.daemon.process.pid)
        metrics = self.metrics()
        sample = {
            "memory": process.memory_info().rss / 1e6,
            "descriptors": float(process.num_fds()),
            "swaps": metrics['step="wake"'] + metrics['step="start"'],
            "wakes": metrics['step="wake"'],
            "tasks": metrics["llamadoze_tasks"],
            "leases": metrics["llamadoze_requests_in_flight"],
            "waiting": metrics["llamadoze_requests_waiting"],
        }
        self.samples.append(sample)
        return sample

    def metrics(self) -> Counter[str]:
        """Return the sums over all models, by metric or by step."""
        found: Counter[str] = Counter()
        for line in self.daemon.ask("GET", "/metrics")[1].decode().splitlines():
            name, _, value = line.rpartition(" ")
            bare, _, labels = name.partition("{")
            found[bare] += 0 if line.startswith("#") else float(value)  # type: ignore[assignment]
            if bare == "llamadoze_model_step_duration_seconds_count":
                found[labels.split(",")[-1].rstrip("}")] += float(value)  # type: ignore[assignment]
        return found


def _is_explained(text: str) -> bool:
    """Whether an error comes from a fault: the stub's answer, its exit, or a closed connection."""
    by_fault = ("a fault", "exited with status 3", "closed the connection", "reset")
    return any(words in text for words in by_fault)


async def soak(daemon: Process, clients: int, swaps: int) -> Soak:
    """Let clients send requests until there are enough swaps; then let everything finish."""
    seen = Soak(daemon)
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(seen.client, number)
        while True:
            await trio.sleep(2)
            sample = await trio.to_thread.run_sync(seen.measure)
            if len(seen.samples) % 10 == 0:
                print(f"{time.monotonic() - began:5.0f} s ", _written(sample), flush=True)
            if sample["wakes"] >= swaps:
                break
        seen.over.set()
    with trio.move_on_after(20):  # time for a fault that hangs
        while sum(seen.measure()[name] for name in ("leases", "waiting")):
            await trio.sleep(0.5)
    print(f"{time.monotonic() - began:5.0f} s ", _written(seen.measure()), "at rest")
    await trio.to_thread.run_sync(daemon.ask, "POST", "/api/models/unload")
    await trio.sleep(2)
    print(f"{time.monotonic() - began:5.0f} s ", _written(seen.measure()), "unloaded")
    return seen


def _written(sample: Numbers) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in sample.items())


def slope(samples: Sequence[Numbers]) -> float:
    """Return the MB by which memory grows in a thousand swaps, by least squares after warming up.

    The slope is `nan` if the soak is too short.
    """
    late = [one for one in samples if one["swaps"] >= WARM]
    if len(late) < ENOUGH:
        return nan
    swaps, memory = [one["swaps"] for one in late], [one["memory"] for one in late]
    return 1000 * linear_regression(swaps, memory).slope


def wrongs(seen: Soak, before: Numbers) -> list[str]:
    """Return what is wrong after a soak."""
    rest, found = seen.samples[-1], [*seen.unexplained[:20]]
    found += [f"{rest[name]:.0f} {name} left" for name in ("leases", "waiting") if rest[name]]
    found += [
        f"{name}: {rest[name]:.0f}, and {before[name]:.0f} before"
        for name in ("descriptors", "tasks")
        if rest[name] > before[name] + 2  # connections of the measurement itself
    ]
    if slope(seen.samples) > FLAT:
        found.append(f"memory grows by {slope(seen.samples):.1f} MB in 1,000 swaps")
    return found


def configuration(folder: Path, chance: float) -> str:
    """Write the configuration of models that sometimes fail."""
    faults = {
        path: {"chance": chance, "any": found + (FATAL if chance else [])}
        for path, found in FAULTS.items()
    }
    weighed = {"hostMemory": True, "freed": 30, "timeout": 1, "canary": True}
    asked = {"timeout": 1, "canary": True}  # for a container, whose memory llamadoze cannot measure
    limits = {"cmdSleepTimeout": 1, "cmdWakeTimeout": 1}
    sleeps: dict[str, Any] = {"sleep": "vllm", "verify": weighed, **limits}
    options = ("--hold", "16", "--faults", json.dumps(faults))
    server = stub_command("--port", "${PORT}", *options)
    models: dict[str, dict[str, Any]] = {
        **{name: {"cmd": server, **sleeps} for name in PLAIN},
        "session": {"cmd": f"setsid -w {server}", **sleeps},
        "shell": {"cmd": f"sh -c {shlex.quote(f'timeout 3600 {server}; true')}"},
        "container": {"cmd": contained("one", server), **sleeps, "verify": asked},
        "container-without-sleep": {"cmd": contained("two", server)},
    }
    everywhere = {"proxy": "http://127.0.0.1:${PORT}", "concurrencyLimit": 1000}
    models = {name: {**model, **everywhere} for name, model in models.items()}
    return write(folder, models=models, maxBackoff=1, maxSleepFailures=0)


def contained(name: str, server: str) -> str:
    """Return a command that runs a server in a container."""
    return f"docker run --rm --name {name} an/image {server}"


def left_over(engine: Engine) -> list[str]:
    """Return the processes and containers that still live."""
    return processes_with(str(STUB)) + [f"container {name}" for name in engine.containers()]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Swap models for a long time.")
    parser.add_argument("--swaps", type=int, default=1000, help="wakes until the end (1000)")
    parser.add_argument("--clients", type=int, default=50, help="who ask at once (50)")
    parser.add_argument("--faults", type=float, default=0.01, help="chance of a fault (0.01)")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder, engine_in(Path(folder) / "engine") as engine:
        os.environ["PATH"] = engine.path()
        file = configuration(Path(folder), options.faults)
        with started("--config", file) as daemon:
            before = Soak(daemon).measure()
            seen = trio.run(soak, daemon, options.clients, options.swaps)
            found = wrongs(seen, before)
            status, seconds = daemon.end()
        left = left_over(engine)
    print(f"answers: {dict(sorted(seen.outcomes.items()))}")
    print(f"memory: {slope(seen.samples):+.2f} MB in 1,000 swaps")
    print(f"ended with {status} after {seconds:.1f} s")
    for one in [*found, *(f"left over: {line}" for line in left)]:
        print(f"WRONG: {one}")
    return 1 if found or left or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
