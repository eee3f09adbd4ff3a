"""Sleep and wake by policy, on a virtual clock: the requirement's own numbers take no time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from supervisor import CannotSleep, ModelFailed, NotRunning, State, Supervisor
from tests.fakes import FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two

B = model("serve b")
LogLines = list[dict[str, Any]]


async def use(supervisor: Supervisor, name: str, seconds: float = 0) -> int | None:
    async with supervisor.lease(name) as server:
        await trio.sleep(seconds)
        return server.snapshot().pid


def state(supervisor: Supervisor, name: str) -> State:
    return supervisor.servers[name].snapshot().state


def events(log_lines: LogLines) -> list[str]:
    return [line["event"] for line in log_lines if line["log_level"] != "debug"]


async def test_a_model_that_makes_room_sleeps_and_wakes_under_the_same_pid(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """This is the main job: a sleeps while b runs, and comes back without a new process."""
    a = model("serve a", cmdSleep="sleep 15", cmdWake="sleep 1.6", cmdSleepTimeout=120)
    async with supervise(two(a, B)) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
        assert await use(supervisor, "a") == first
        assert state(supervisor, "b") is State.STOPPED
    assert programs.history == [
        "+ serve a",
        "+ sleep 15",
        "- sleep 15",
        "+ serve b",
        "- serve b",
        "+ sleep 1.6",
        "- sleep 1.6",
        "- serve a",
    ]
    for message in (
        "<a> Executing cmdSleep (timeout: 120s)",
        "<a> Model sleep completed in 15s",
        "<a> Executing cmdWake (timeout: 60s)",
        "<a> Model wake completed in 1.6s",
    ):
        assert message in events(log_lines)


@pytest.mark.parametrize(("timeout", "slept"), [(10, False), (20, True)])
async def test_a_sleep_of_15_seconds_against_10_and_20(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    timeout: int,
    slept: bool,
) -> None:
    """Too little time stops the model; enough lets it sleep."""
    a = model("serve a", cmdSleep="sleep 15", cmdWake="sleep 1", cmdSleepTimeout=timeout)
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        assert trio.current_time() - began == pytest.approx(min(15, timeout), abs=0.1)
        assert state(supervisor, "a") is (State.ASLEEP if slept else State.STOPPED)
    gave_up = "<a> cmdSleep timed out after 10s, falling back to Stop()"
    assert (gave_up in events(log_lines)) is not slept


@pytest.mark.parametrize(("timeout", "woke"), [(30, False), (60, True)])
async def test_a_wake_of_45_seconds_against_30_and_60(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, timeout: int, woke: bool
) -> None:
    """Too little time restarts the model, and the new process serves the waiting request."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 45", cmdWakeTimeout=timeout)
    async with supervise(two(a, B)) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert (await use(supervisor, "a") == first) is woke
    gave_up = "<a> cmdWake timed out after 30s, restarting process"
    assert (gave_up in events(log_lines)) is not woke


async def test_the_models_90_seconds_hold_against_a_global_30(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A sleep of 60 s completes under the model's own limit."""
    a = model("serve a", cmdSleep="sleep 60", cmdWake="sleep 1", cmdSleepTimeout=90)
    async with supervise("cmdSleepTimeout: 30\n" + two(a, B)) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("fail 22", "cmdSleep exited with status 22"),
        ("missing", "cmdSleep cannot be started: No such file or directory: 'missing'"),
    ],
)
async def test_a_sleep_that_fails_stops_the_model(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    command: str,
    reason: str,
) -> None:
    """The failed sleeper's memory must be free before the next model starts."""
    a = model("serve a", cmdSleep=f"'{command}'", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        snapshot = supervisor.servers["a"].snapshot()
        assert (snapshot.state, snapshot.failure) == (State.STOPPED, reason)
        assert programs.history.index("- serve a") < programs.history.index("+ serve b")
    assert f"<a> {reason}, falling back to Stop()" in events(log_lines)
    (entry,) = [line for line in log_lines if line.get("reason") == reason]
    assert (entry["model"], entry["log_level"]) == ("a", "error")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("fail 7", "cmdWake exited with status 7"),
        ("missing", "cmdWake cannot be started: No such file or directory: 'missing'"),
    ],
)
async def test_a_wake_that_fails_restarts_the_model(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    command: str,
    reason: str,
) -> None:
    """A new process still serves the request."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake=f"'{command}'")
    async with supervise(two(a, B)) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        second = await use(supervisor, "a")
        assert second is not None
        assert second != first
    assert f"<a> {reason}, restarting process" in events(log_lines)


async def test_a_model_that_is_not_ready_after_its_wake_is_restarted(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """A wake succeeds when the model answers its check again, within the limit of a wake."""
    probe = FakeProbe()
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1", cmdWakeTimeout=15)
    async with supervise("healthCheckTimeout: 300\n" + two(a, B), probe) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        probe.unready.add("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            await trio.sleep(17)
            probe.unready.clear()
        assert supervisor.servers["a"].snapshot().pid not in (None, first)
    assert (
        "<a> after cmdWake the model was not ready within 15s: /health answered 503, "
        "restarting process" in events(log_lines)
    )


async def test_a_request_while_its_model_falls_asleep_is_served_after_it_woke(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """The request waits for the end of the sleep; no second command runs beside the first."""
    a = model("serve a", cmdSleep="sleep 10", cmdWake="sleep 2")
    async with supervise(two(a, B)) as supervisor:
        first = await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.sleep, "a")
            await trio.sleep(3)
            assert state(supervisor, "a") is State.FALLING_ASLEEP
            assert await use(supervisor, "a") == first
            assert trio.current_time() == pytest.approx(12, abs=0.5)


async def test_requests_that_wait_for_the_same_model_get_in_together(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """One swap serves them all."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(use, supervisor, "b", 2)
            await trio.sleep(1.5)
            assert supervisor.servers["b"].snapshot().in_flight == 5
    assert programs.history.count("+ serve b") == 1


async def test_a_request_in_flight_is_not_cut_by_a_swap(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The other model waits until the request ends."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", 100)
        await trio.sleep(1)
        await use(supervisor, "b")
        assert trio.current_time() == pytest.approx(101, abs=0.5)


async def test_a_waiter_that_leaves_starts_nothing(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze loads no model that nobody waits for."""
    async with supervise(two(model("serve a"), B)) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", 10)
        await trio.sleep(1)
        with trio.move_on_after(2):
            await use(supervisor, "b")
        await trio.sleep(60)
        assert "+ serve b" not in programs.history


@pytest.mark.parametrize("ttl", [30, 600])
async def test_at_its_ttl_a_model_sleeps_if_it_can(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, ttl: int
) -> None:
    """The idle time begins with the end of the last request."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1", ttl=ttl)
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a", 1000)
        await trio.sleep(ttl - 1)
        assert state(supervisor, "a") is State.READY
        await trio.sleep(3)
        assert state(supervisor, "a") is State.ASLEEP
    assert f"<a> Sleeping model, TTL of {ttl}s reached" in events(log_lines)


async def test_at_its_ttl_a_model_without_sleep_stops(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """After that, the next request starts the model again."""
    async with supervise("globalTTL: 30\n" + two(model("serve a"), B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(31)
        assert state(supervisor, "a") is State.STOPPED
        await use(supervisor, "a")
        assert state(supervisor, "a") is State.READY


async def test_a_model_nobody_used_after_its_load_has_its_whole_ttl(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """The load itself counts as use; otherwise the load would be for nothing."""
    async with supervise(two(model("serve a", ttl=30), B)) as supervisor:
        await trio.sleep(1000)
        await supervisor.load("a")
        await trio.sleep(29)
        assert state(supervisor, "a") is State.READY


async def test_an_operators_sleep_waits_for_the_requests_in_flight(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """As soon as a sleep is wished, new requests wait, so a steady load cannot delay the sleep."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", 10)
        await trio.sleep(1)
        nursery.start_soon(supervisor.sleep, "a")
        await trio.sleep(1)
        nursery.start_soon(use, supervisor, "a", 10)
        await trio.sleep(5)
        assert supervisor.servers["a"].snapshot().in_flight == 1
        await trio.sleep(4.5)
        assert state(supervisor, "a") is State.WAKING
    assert programs.history == [
        "+ serve a",
        *("+ sleep 1", "- sleep 1", "+ sleep 1", "- sleep 1"),
        "- serve a",
    ]


async def test_sleeping_what_cannot_sleep_or_does_not_run_is_refused(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """Each refusal has its reason."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        with pytest.raises(NotRunning, match="model 'a' is stopped: load it first"):
            await supervisor.sleep("a")
        with pytest.raises(NotRunning):
            await supervisor.wake("a")
        with pytest.raises(CannotSleep, match="configure sleep, cmdSleep and cmdWake"):
            await supervisor.sleep("b")
        await supervisor.load("a")
        assert (await supervisor.sleep("a")).state is State.ASLEEP
        assert (await supervisor.sleep("a")).state is State.ASLEEP
        assert (await supervisor.wake("a")).state is State.READY


async def test_an_operators_sleep_that_fails_says_so(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The answer is not "OK" if the model was stopped instead."""
    a = model("serve a", cmdSleep="fail 22", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        await supervisor.load("a")
        with pytest.raises(ModelFailed, match="cmdSleep exited with status 22"):
            await supervisor.sleep("a")


async def test_a_failed_sleep_is_told_even_if_the_model_starts_again_at_once(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A waiting request starts the model before the operator's call goes on."""
    a = model("serve a", cmdSleep="fail 22", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", 10)
        await trio.sleep(1)

        async def sleep() -> None:
            with pytest.raises(ModelFailed, match="cmdSleep exited with status 22"):
                await supervisor.sleep("a")

        nursery.start_soon(sleep)
        await trio.sleep(1)
        nursery.start_soon(use, supervisor, "a")
