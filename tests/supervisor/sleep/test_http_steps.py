"""Sleep and wake by llamadoze's own HTTP requests, on a virtual clock."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from supervisor import State, Supervisor
from tests.fakes import FakeCalls, FakePrograms
from tests.supervisor.helpers import model, supervise, two

B = model("serve b")
LogLines = list[dict[str, Any]]
WAKE = "[{endpoint: /wake_up}, {endpoint: /collective_rpc, body: '{}'}]"


def sleeper(sleep: str = "[{endpoint: /sleep}]", wake: str = WAKE) -> str:
    return model("serve a", sleepMode="enable", sleepEndpoints=sleep, wakeEndpoints=wake)


async def use(supervisor: Supervisor, name: str) -> int | None:
    async with supervisor.lease(name) as server:
        return server.snapshot().pid


def events(log_lines: LogLines) -> list[str]:
    return [line["event"] for line in log_lines if line["log_level"] != "debug"]


async def test_the_steps_are_taken_in_their_order(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """All steps go to the same process, which also serves after the wake."""
    calls = FakeCalls()
    async with supervise(two(sleeper(), B), calls=calls) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert supervisor.servers["a"].snapshot().state is State.ASLEEP
        assert await use(supervisor, "a") == first
    base = "http://model.test:9"
    assert calls.made == [
        f"POST {base}/sleep",
        f"POST {base}/wake_up",
        f"POST {base}/collective_rpc {{}}",
    ]
    for message in (
        "<a> Executing 1 sleep request (timeout: 60s)",
        "<a> Executing 2 wake requests (timeout: 60s)",
    ):
        assert message in events(log_lines)


async def test_a_step_into_sleep_that_fails_stops_the_model(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """llamadoze does not take the later steps."""
    calls = FakeCalls(failing="/sleep")
    steps = "[{endpoint: /sleep}, {endpoint: /more}]"
    async with supervise(two(sleeper(steps), B), calls=calls) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert supervisor.servers["a"].snapshot().state is State.STOPPED
    assert calls.made == ["POST http://model.test:9/sleep"]
    assert "<a> sleep step 1 (POST /sleep) answered 500, falling back to Stop()" in events(
        log_lines
    )


async def test_a_step_out_of_sleep_that_fails_restarts_the_model(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The new process serves the waiting request."""
    async with supervise(two(sleeper(), B), calls=FakeCalls(failing="rpc")) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") != first
    assert "<a> wake step 2 (POST /collective_rpc) answered 500, restarting process" in events(
        log_lines
    )


async def test_each_step_has_its_own_limit(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The first step takes its 100 of 120 s; the second has 20 s and would take 30 s."""
    steps = "[{endpoint: '/a?slow=100', timeout: 120}, {endpoint: '/b?slow=30'}]"
    text = "sleepRequestTimeout: 20\n" + two(sleeper(steps), B)
    async with supervise(text) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        assert 120 <= trio.current_time() - began < 122
    assert (
        "<a> sleep step 2 (POST /b?slow=30) timed out after 20s, falling back to Stop()"
        in events(log_lines)
    )


async def test_an_idle_model_with_endpoints_stops_at_its_ttl(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """As in llmsnap, `ttl` never puts a model with endpoints to sleep."""
    async with supervise("globalTTL: 60\n" + two(sleeper(), B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(62)
        assert supervisor.servers["a"].snapshot().state is State.STOPPED
