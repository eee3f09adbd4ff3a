"""A real process whose sleep and wake fail in every way: what follows, and how soon.

Each row stands for a row of docs/explanation/reliability.md, with short times. Whatever happens,
both clients are served, and nothing is left over.
"""

from __future__ import annotations

import json
import time
from typing import Any

import attrs
import pytest
import trio

from configschema import Limits
from tests.conftest import processes_with
from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub

LIMITS = Limits(sleep=0.6, sleep_call=0.6, wake=0.6, wake_call=0.6, check=0.4, canary=0.5, ready=5)
MARGIN = 1.0  # seconds after its deadline within which each fault is over
VERIFIED = {"hostMemory": True, "canary": True}
Lines = list[dict[str, Any]]


@attrs.frozen(kw_only=True)
class Row:
    """A fault, and what follows from it.

    Attributes:
        path: the route where the model server fails.
        fault: what the model server does there.
        state: the model's state after it should have fallen asleep.
        same: whether the same process serves the next request.
        says: what the log says.
        deadline: seconds until llamadoze notices the fault.
        limits: the limits of the model.
    """

    path: str
    fault: dict[str, Any]
    state: str
    same: bool
    says: str
    deadline: float
    limits: Limits = LIMITS


def asleep(says: str, deadline: float = 0.0, **fault: Any) -> Row:
    """Return a fault in a sleep, after which llamadoze stops the model."""
    return Row(
        path="/sleep", fault=fault, state="stopped", same=False, says=says, deadline=deadline
    )


def awake(says: str, deadline: float = 0.0, path: str = "/wake_up", **fault: Any) -> Row:
    """Return a fault in a wake, after which llamadoze restarts the model."""
    return Row(path=path, fault=fault, state="asleep", same=False, says=says, deadline=deadline)


SLEEP, WAKE = "sleep (POST /sleep?level=1)", "wake (POST /wake_up)"
BACK, AGAIN = ", falling back to Stop()", ", restarting process"
ROWS = {
    "sleep answers 404": asleep(
        f'{SLEEP} answered 404 ({{"detail": "a fault"}}){BACK}', status=404
    ),
    "sleep answers 500": asleep(
        f'{SLEEP} answered 500 ({{"detail": "a fault"}}){BACK}', status=500
    ),
    "sleep answers 200 and does nothing": asleep(
        "asleep (GET /is_sleeping) timed out after 0.400s (answered", 0.4, keep=True
    ),
    "sleep hangs": asleep(f"{SLEEP} timed out after 0.600s{BACK}", 0.6, hang=True),
    "sleep closes the connection": asleep(f"{SLEEP} failed: ", close=True),
    "sleep takes half its time": Row(
        path="/sleep",
        fault={"delay": 0.3},
        state="asleep",
        same=True,
        says="Model sleep completed in ",
        deadline=0.3,
    ),
    "sleep ends the process": Row(
        path="/sleep",
        fault={"exit": 3},
        state="failed",
        same=False,
        says="Model failed: process exited with status 3 while sleepPending",
        deadline=0,
    ),
    "wake answers 404": awake(f"{WAKE} answered 404", status=404),
    "wake answers 500, out of memory": awake(f"{WAKE} answered 500", status=500),
    "wake answers 200 and does nothing": awake(
        "awake (GET /is_sleeping) timed out after 0.400s", 0.4, keep=True
    ),
    "wake hangs": awake(f"{WAKE} timed out after 0.600s{AGAIN}", 0.6, hang=True),
    "wake closes the connection": awake(f"{WAKE} failed: ", close=True),
    "wake ends the process": awake("exited with status 3 while waking", exit=3),
    "wake takes half its time": Row(
        path="/wake_up",
        fault={"delay": 1.5},
        state="asleep",
        same=True,
        says="Model wake completed in ",
        deadline=1.5,
        limits=attrs.evolve(LIMITS, wake=3, wake_call=3, canary=3),
    ),
    "wake is good and the model talks garbage": awake(
        f"after the wake the model said '!!!!', before the sleep 'four'{AGAIN}", garbage="!!!!"
    ),
    "wake is good and completions answer 500": awake(
        "after the wake no token came: /v1/chat/completions answered 500",
        path="/v1/chat/completions",
        status=500,
    ),
    "wake is good and completions hang": awake(
        f"after the wake no token came: no token within 0.500s{AGAIN}",
        0.5,
        path="/v1/chat/completions",
        hang=True,
    ),
    "wake is good and the health check hangs": awake(
        "after 1 wake request the model was not ready within", 0.5, path="/health", hang=True
    ),
}


def sleeper(**keys: Any) -> dict[str, Any]:
    return stub("--hold", "64", **{"sleep": "vllm", "verify": VERIFIED, **keys})


async def break_it(port: int, faults: dict[str, Any]) -> None:
    """Make a model server fail in these ways from now on."""
    body = json.dumps(faults).encode()
    head = f"POST /faults HTTP/1.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(head.encode() + body)
        while await stream.receive_some():
            pass


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_whatever_sleep_does_both_models_are_served(row: Row, log_lines: Lines) -> None:
    """The model reaches its documented state within the fault's deadline and a second."""
    async with daemon({"a": sleeper(), "b": stub()}, limits={"a": row.limits}) as running:
        first = (await chat(running.port, "a")).json()["pid"]
        port = running.supervisor.config.models["a"].port or 0
        if row.path == "/sleep" or row.path == "/wake_up":
            await break_it(port, {row.path: row.fault})
        began = time.monotonic()
        assert (await chat(running.port, "b")).status == 200
        if row.path == "/sleep":
            assert row.deadline <= time.monotonic() - began < row.deadline + MARGIN
        assert running.state("a") == row.state
        if row.path not in ("/sleep", "/wake_up"):
            await break_it(port, dict.fromkeys(row.path.split(" and "), row.fault))
        began = time.monotonic()
        reply = await chat(running.port, "a")
        assert reply.status == 200
        took = time.monotonic() - began
        assert took < row.deadline + MARGIN
        assert row.path == "/sleep" or took >= row.deadline
        assert (reply.json()["pid"] == first) is row.same
        said = [line["event"] for line in log_lines]
        assert any(row.says in line for line in said), said
        port = running.supervisor.servers["a"].model.port or 0  # the first may be blocked a minute
        assert len(processes_with(f"--port {port} ")) == 1
        usage = running.supervisor.servers["a"].usage
        assert (usage.in_flight, usage.waiting) == (0, 0)
    assert not processes_with(f"--port {port} ")


async def test_a_sleep_that_frees_nothing_is_found_by_its_memory(log_lines: Lines) -> None:
    """The server says that it sleeps, but its memory shows that it does not."""
    sleeps = {"endpoint": "/is_sleeping"}
    verify = {"hostMemory": True, "asleep": [sleeps]}
    a = sleeper(verify=verify)
    async with daemon({"a": a, "b": stub()}, limits={"a": LIMITS}) as running:
        await chat(running.port, "a")
        await break_it(running.supervisor.config.models["a"].port or 0, {"/sleep": {"keep": True}})
        began = time.monotonic()
        assert (await chat(running.port, "b")).status == 200
        assert time.monotonic() - began < LIMITS.check + MARGIN
        assert running.state("a") == "stopped"
    said = [line["event"] for line in log_lines]
    assert any("the model still holds" in line and "host memory" in line for line in said)


async def test_a_sleep_that_frees_its_memory_says_how_much(log_lines: Lines) -> None:
    """The log, the metrics and /running all say how much memory the sleep freed."""
    async with daemon({"a": sleeper(), "b": stub()}, limits={"a": LIMITS}) as running:
        await chat(running.port, "a")
        await chat(running.port, "b")
        (row,) = [
            one
            for one in (await ask(running.port, "GET", "/running")).json()["running"]
            if one["model"] == "a"
        ]
        assert row["sleep"]["trusted"] is True
        assert row["sleep"]["memory"]["host"]["freed"] > 60 << 20
        metrics = (await ask(running.port, "GET", "/metrics")).body.decode()
        assert 'llamadoze_sleep_freed_bytes{memory="host",model="a"}' in metrics
        assert 'llamadoze_sleep_trusted{model="a"} 1.0' in metrics
    (line,) = [one for one in log_lines if "Sleep freed" in one["event"]]
    assert line["freed_bytes"] > 60 << 20
    assert line["cycles"] == 1


async def test_after_failures_in_a_row_the_model_is_swapped_by_stop_and_start(
    log_lines: Lines,
) -> None:
    """Requests no longer wait for a sleep that does not work."""
    faults = json.dumps({"/sleep": {"status": 500}})
    a = stub("--faults", faults, sleep="vllm")
    async with daemon({"a": a, "b": stub()}, maxSleepFailures=2) as running:
        for _ in range(4):
            assert (await chat(running.port, "a")).status == 200
            assert (await chat(running.port, "b")).status == 200
        row = running.supervisor.servers["a"].sleeping
        assert not row.trust.holds
    said = [line["event"] for line in log_lines]
    assert sum("falling back to Stop()" in line for line in said) == 2
    assert sum("Sleep is switched off after 2 failures" in line for line in said) == 1
