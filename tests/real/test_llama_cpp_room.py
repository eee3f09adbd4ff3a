"""Room by measurement, with three real llama.cpp servers that use the host's memory.

llamadoze reads from /proc what each server holds. Two of the servers fit beside each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.demo.weights import Shape, write_model
from supervisor.processes.memory import weigh
from tests.peers.client import chat
from tests.proxy.daemon import Daemon, daemon
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events

SHAPE = Shape(width=512, heads=8, layers=8, inner=2048)
HI: dict[str, Any] = {"max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
GIB = 1 << 30
NAMES = "abc"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return three servers of a model of 67 MB."""
    folder: Path = tmp_path_factory.mktemp("gguf")
    write_model(folder / "big.gguf", name="big", seed=1, shape=SHAPE)
    command = f"{sys.executable} -m tests.real.llama_cpp --model {folder / 'big.gguf'}"
    server = {"cmd": f"{command} --port ${{PORT}}", "proxy": "http://127.0.0.1:${PORT}"}
    return dict.fromkeys(NAMES, server)


def memory(gibibytes: float) -> dict[str, Any]:
    settings = {"memory": {"hostMemory": round(gibibytes, 3)}}
    return {"router": {"use": "memory", "settings": settings}}


async def held(running: Daemon) -> dict[str, int]:
    """Return the bytes that each model's process holds, as /proc shows them."""
    pids = {name: pid for name in NAMES if (pid := running.pid(name))}
    return {name: (await weigh(pid, True)).host or 0 for name, pid in pids.items()}


async def asked(running: Daemon, names: str, most: float) -> None:
    """Send a request to each model in turn; check that together they hold `most` GiB at most."""
    for name in names:
        assert (await chat(running.port, name, **HI)).status == 200
        assert sum((await held(running)).values()) <= most * GIB


async def ask_until_idle_for_long(running: Daemon, used: str, idle: str, most: float) -> None:
    """Use one of two models until the other has been idle for longer than ever.

    Only the idle time is to decide, so both models get the same costs: how long a start takes
    varies on a busy machine.
    """
    servers = running.supervisor.servers
    servers[used].at.costs = servers[idle].at.costs
    other = servers[idle].usage
    while trio.current_time() - other.idle_since <= max(other.habits.gaps):
        await asked(running, used, most)


def starts(log_lines: LogLines) -> Sequence[str]:
    return [line[1] for line in events(log_lines) if "Starting process" in line]


async def test_two_that_fit_run_without_a_swap_and_the_third_takes_the_place_of_one(
    models: dict[str, Any], log_lines: LogLines
) -> None:
    """No sizes are given, so each model first runs alone and is measured; then two run together."""
    async with daemon(models) as running:
        await chat(running.port, "a", **HI)
        size = (await held(running))["a"] / GIB
    log_lines.clear()
    most = size * 2.6
    async with daemon(models, routing=memory(most)) as running:
        await asked(running, "aba", most)  # a alone, b alone, then a beside what is known of b
        await asked(running, "babab" + "a", most)
        assert list(starts(log_lines)) == ["a", "b", "a", "b"]
        assert set(await held(running)) == {"a", "b"}
        # Nothing is known of c, so both leave. Then c is measured, and the next model joins c.
        await asked(running, "c", most)
        assert set(await held(running)) == {"c"}
        await asked(running, "bcbcb", most)
        assert set(await held(running)) == {"b", "c"}
        await ask_until_idle_for_long(running, "b", "c", most)
        log_lines.clear()
        await asked(running, "a", most)  # a takes the place of c, which has been idle for longer
        assert set(await held(running)) == {"a", "b"}
        assert list(starts(log_lines)) == ["a"]
