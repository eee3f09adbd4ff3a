"""Real processes that die, hang, flood their log, or do not end: what follows, and how soon."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from functools import partial
from typing import Any

import attrs
import psutil
import pytest
import trio

from configschema import Limits
from tests.conftest import processes_with, stub_command
from tests.peers.client import Client, ask, chat
from tests.proxy.daemon import Daemon, daemon, stub

SHORT = Limits(sleep=0.4, sleep_call=0.4, wake=0.4, wake_call=0.4, check=0.3, ready=1, unload=0.3)
MARGIN = 1.0  # seconds after its deadline within which each fault is over
Lines = list[dict[str, Any]]


def said(lines: Lines, words: str) -> bool:
    return any(words in line["event"] for line in lines)


def kill(running: Daemon, model: str, number: signal.Signals = signal.SIGKILL) -> None:
    pid = running.pid(model)
    assert pid
    os.kill(pid, number)


async def until(running: Daemon, model: str, state: str, limit: float = 2) -> None:
    with trio.fail_after(limit):
        while running.state(model) != state or (state == "starting" and not running.pid(model)):
            await trio.sleep(0.01)


def nothing_is_left(running: Daemon) -> None:
    for server in running.supervisor.servers.values():
        assert (server.usage.in_flight, server.usage.waiting) == (0, 0)


@pytest.mark.parametrize("state", ["starting", "ready", "sleepPending", "asleep", "waking"])
async def test_a_process_that_is_killed_in_any_state_is_replaced(
    state: str, log_lines: Lines
) -> None:
    """A new process serves the request, except that a request that waits for a start gets 502."""
    slow = {"/sleep": {"delay": 0.3}, "/wake_up": {"delay": 0.3}}
    start = ("--ready-after", "0.3") if state == "starting" else ()
    a = stub("--faults", json.dumps(slow), *start, sleep="vllm")
    async with daemon({"a": a, "b": stub()}) as running, trio.open_nursery() as nursery:
        replies: list[int] = []

        async def want(model: str) -> None:
            replies.append((await chat(running.port, model)).status)

        if state != "starting":
            await want("a")
        if state in ("asleep", "waking"):
            await want("b")
        if state in ("starting", "waking"):
            nursery.start_soon(want, "a")
        if state == "sleepPending":
            nursery.start_soon(want, "b")
        await until(running, "a", state)
        replies.clear()
        kill(running, "a")
        if state in ("ready", "asleep"):
            await until(running, "a", "failed")  # the request must come after the death is seen
        if state != "starting":  # in this state the waiting request is answered at once
            assert (await chat(running.port, "a")).status == 200
            with trio.fail_after(3):
                while state in ("sleepPending", "waking") and not replies:
                    await trio.sleep(0.01)
        else:
            with trio.fail_after(2):
                while not replies:
                    await trio.sleep(0.01)
    assert replies == {"starting": [502], "sleepPending": [200], "waking": [200]}.get(state, [])
    assert said(log_lines, f"process was killed by SIGKILL while {state}")
    nothing_is_left(running)


async def test_a_process_that_is_frozen_when_it_should_sleep_is_killed(log_lines: Lines) -> None:
    """After SIGSTOP the process answers nothing and SIGTERM has no effect, so it gets SIGKILL."""
    async with daemon(
        {"a": stub(sleep="vllm"), "b": stub()}, limits={"a": SHORT, "b": SHORT}
    ) as running:
        await chat(running.port, "a")
        frozen = running.pid("a")
        kill(running, "a", signal.SIGSTOP)
        began = time.monotonic()
        assert (await chat(running.port, "b")).status == 200
        assert time.monotonic() - began < SHORT.sleep + SHORT.unload + MARGIN
        assert not psutil.pid_exists(frozen or 0)
    assert said(log_lines, "sleep (POST /sleep?level=1) timed out after 0.400s")
    assert said(log_lines, "Process did not end within 0.300s and was killed")


async def test_a_process_that_is_frozen_while_it_sleeps_is_restarted(log_lines: Lines) -> None:
    """The wake times out, and llamadoze restarts the process."""
    async with daemon(
        {"a": stub(sleep="vllm"), "b": stub()}, limits={"a": SHORT, "b": SHORT}
    ) as running:
        await chat(running.port, "a")
        await chat(running.port, "b")
        kill(running, "a", signal.SIGSTOP)
        began = time.monotonic()
        assert (await chat(running.port, "a")).status == 200
        assert time.monotonic() - began < SHORT.wake + SHORT.unload + MARGIN
    assert said(log_lines, "wake (POST /wake_up) timed out after 0.400s, restarting process")


async def test_a_health_check_that_hangs_is_a_start_that_fails(log_lines: Lines) -> None:
    """Each next start waits a little longer, as /running shows."""
    faults = json.dumps({"/health": {"hang": True}})
    async with daemon({"a": stub("--faults", faults)}, limits={"a": SHORT}) as running:
        for wait in (0, 1):
            began = time.monotonic()
            reply = await chat(running.port, "a")
            assert (reply.status, reply.json()["error"]["code"]) == (502, "model_failed")
            assert time.monotonic() - began < SHORT.ready + SHORT.unload + wait + MARGIN
        (row,) = (await ask(running.port, "GET", "/running")).json()["running"]
        assert (row["state"], row["failures"]) == ("failed", 2)
        assert 1 < row["retryIn"] <= 2
    assert said(log_lines, "Model failed: not ready within 1s")
    assert said(log_lines, "A request in 2s or later starts it again after 2 failures in a row")
    assert not processes_with(f"--port {running.supervisor.config.models['a'].port} ")


async def test_a_model_that_fails_again_and_again_says_when_to_come_back() -> None:
    """As soon as the backoff is long, a request gets 503 with Retry-After."""
    async with daemon({"a": stub("--exit", "3")}) as running:
        server = running.supervisor.servers["a"]
        for _ in range(3):
            assert (await chat(running.port, "a")).status == 502
            server.backoff = type(server.backoff)(server.backoff.failures)
        assert (await chat(running.port, "a")).status == 502
        reply = await chat(running.port, "a")
        assert (reply.status, reply.json()["error"]["code"]) == (503, "model_backing_off")
        assert int(reply.headers["retry-after"]) == 8
        assert "failed 4 times in a row" in reply.json()["error"]["message"]
        await ask(running.port, "POST", "/api/models/unload/a")
        assert (await chat(running.port, "a")).status == 502


async def test_a_selector_leaves_out_who_may_not_start_yet() -> None:
    """The selector's other target serves the requests."""
    models = {"a": stub(), "b": stub("--exit", "3")}
    groups = {"g": {"swap": False, "members": ["a", "b"]}}
    selectors = {"any": {"strategy": "spillover", "targets": ["a", "b"]}}
    async with daemon(models, groups=groups, selectors=selectors) as running:
        assert (await chat(running.port, "b")).status == 502
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(chat, running.port, "any", delay=0.5))
            await trio.sleep(0.2)
            for _ in range(3):
                assert (await chat(running.port, "any")).status == 200


async def test_requests_that_never_end_hold_up_a_sleep_for_no_longer_than_they_may(
    log_lines: Lines,
) -> None:
    """After drainTimeout their streams end with an error event, and the model is stopped."""
    limits = attrs.evolve(SHORT, drain=0.4)
    async with daemon({"a": stub(sleep="vllm"), "b": stub()}, limits={"a": limits}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            body = json.dumps({"model": "a", "stream": True, "chunks": 9, "pause": 60})
            await client.send("POST", "/v1/chat/completions", body.encode())
            await until(running, "a", "ready")
            await trio.sleep(0.1)
            began = time.monotonic()
            slept = await ask(running.port, "POST", "/api/models/sleep/a")
            assert slept.status == 502
            assert time.monotonic() - began < limits.drain + limits.unload + MARGIN
            reply = await client.receive()
        assert b"event: error" in reply.body or b'"error"' in reply.body
    assert said(log_lines, "requests were still running after 0.400s (drainTimeout)")


async def test_a_process_that_has_left_the_session_ends_with_its_model() -> None:
    """The process keeps the log's pipe open, and would keep its memory."""
    async with daemon({"a": stub("--escape", "30")}, limits={"a": SHORT}) as running:
        await chat(running.port, "a")
        began = time.monotonic()
        await ask(running.port, "POST", "/api/models/unload/a")
        assert time.monotonic() - began < MARGIN
        assert running.state("a") == "stopped"
        assert processes_with("--escape") == []


async def test_a_model_that_floods_its_log_holds_up_nobody() -> None:
    """While the model writes as fast as it can, another model still answers quickly."""
    models = {"a": stub("--flood", "2"), "b": stub()}
    groups = {"g": {"swap": False, "members": ["a", "b"]}}
    async with daemon(models, groups=groups) as running:
        await chat(running.port, "b")
        before = psutil.Process().memory_info().rss
        await chat(running.port, "a")
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert (await chat(running.port, "b")).status == 200
            slowest = max(slowest, time.monotonic() - began)
            await trio.sleep(0.02)
        assert slowest < 0.5
        assert psutil.Process().memory_info().rss - before < 64 << 20


async def test_a_port_that_is_taken_is_no_failure_where_another_will_do() -> None:
    """The model moves to another port, as the stranger's answers would be taken for the model's."""
    async with daemon({"a": stub()}) as running:
        port = running.supervisor.config.models["a"].port or 0
        with socket.create_server(("127.0.0.1", port)):
            assert (await chat(running.port, "a")).json()["pid"] == running.pid("a")
            assert running.supervisor.servers["a"].model.port != port


async def test_a_fixed_port_that_is_taken_is_a_failure_that_says_so() -> None:
    """The operator must end the process that has the port, or choose another port."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        fixed = {"cmd": stub_command("--port", f"{port}"), "proxy": f"http://127.0.0.1:{port}"}
        async with daemon({"a": fixed}) as running:
            reply = await chat(running.port, "a")
            assert reply.status == 502
            assert f"its port {port} is in use by '" in reply.json()["error"]["message"]
            stranger.close()
            assert (await chat(running.port, "a")).status == 200
