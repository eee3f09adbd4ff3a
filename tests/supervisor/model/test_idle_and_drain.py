"""An idle model goes from awake to asleep to stopped; what delays a sleep is bounded."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from supervisor import ModelFailed, State, Supervisor
from supervisor.model.surroundings import Surroundings
from supervisor.states.table import HOLDS_MEMORY, Wish
from tests.fakes import FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two

B = model("serve b")
LogLines = list[dict[str, Any]]


async def use(supervisor: Supervisor, name: str, seconds: float = 0) -> None:
    async with supervisor.lease(name):
        await trio.sleep(seconds)


def sleeper(**keys: object) -> str:
    return model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1", **keys)


def state(supervisor: Supervisor) -> State:
    return supervisor.servers["a"].snapshot().state


async def test_an_idle_model_sleeps_and_then_stops(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """Both times count from the end of the last request."""
    async with supervise(two(sleeper(sleepTtl=60, ttl=600), B)) as supervisor:
        await use(supervisor, "a", 1000)
        await trio.sleep(59)
        assert state(supervisor) is State.READY
        await trio.sleep(3)
        assert state(supervisor) is State.ASLEEP
        await trio.sleep(537)
        assert state(supervisor) is State.ASLEEP
        await trio.sleep(2)
        assert state(supervisor) is State.STOPPED
        await trio.sleep(5000)
    said = [line["event"] for line in log_lines]
    assert said.count("<a> Sleeping model, TTL of 60s reached") == 1
    assert said.count("<a> Unloading model, TTL of 600s reached") == 1
    assert "+ serve a" in programs.history
    assert programs.history.count("- serve a") == 1


async def test_a_request_begins_the_ladder_anew(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A request begins both idle times again, whether the model was asleep or stopped."""
    async with supervise(two(sleeper(sleepTtl=60, ttl=600), B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(500)
        await use(supervisor, "a")
        await trio.sleep(500)
        assert state(supervisor) is State.ASLEEP
        await trio.sleep(110)
        assert state(supervisor) is State.STOPPED
        await use(supervisor, "a")
        assert state(supervisor) is State.READY


async def test_one_that_sleeps_for_another_stops_at_its_ttl_too(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """`ttl` counts for a model that made room by a sleep as for any other sleeper."""
    async with supervise(two(sleeper(sleepTtl=0, ttl=600), B)) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b", 100)
        assert state(supervisor) is State.ASLEEP
        await trio.sleep(520)
        assert state(supervisor) is State.STOPPED


async def test_a_ttl_of_commands_alone_is_a_sleep_without_end(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """With cmdSleep alone, `ttl` never stops the model, as in the program that had it first."""
    async with supervise(two(sleeper(ttl=60), B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(80_000)
        assert state(supervisor) is State.ASLEEP


async def test_a_request_and_the_end_of_the_ttl_in_one_moment_lose_nothing(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Whether the request or the end of the ttl comes first, the request is served."""
    async with supervise(two(sleeper(sleepTtl=60, ttl=120), B)) as supervisor:
        await use(supervisor, "a")
        for pause in (60, 61, 62, 120, 121, 59.999, 60.001):
            await trio.sleep(pause)
            await use(supervisor, "a")
            assert state(supervisor) is State.READY


async def test_a_request_while_the_model_falls_asleep_is_not_overtaken_by_the_ttl(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The request waits until the sleep ends, past the ttl, and gets a wake instead of a start."""
    a = model("serve a", cmdSleep="sleep 5", cmdWake="sleep 1", sleepTtl=60, ttl=62)
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(61.5)
        assert state(supervisor) is State.FALLING_ASLEEP
        await use(supervisor, "a")
    assert programs.history.count("+ serve a") == 1


async def test_a_sleeper_that_is_waited_for_is_not_idle(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The model that it waits for may be in use for longer than the sleeper's ttl."""
    async with supervise(two(sleeper(sleepTtl=0, ttl=600), B)) as supervisor:
        await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "b", 1000)
            await trio.sleep(100)
            await use(supervisor, "a")
    assert programs.history.count("+ serve a") == 1


@pytest.mark.parametrize("ticks", range(8))
async def test_a_sleeper_whose_waiter_left_is_not_woken_beside_another(
    autojump_clock: MockClock, programs: FakePrograms, ticks: int
) -> None:
    """The number of steps between the call and its withdrawal does not matter."""
    b = model("serve b", cmdSleep="sleep 5", cmdWake="sleep 1")
    up: list[set[str]] = []
    async with supervise(two(sleeper(), b)) as supervisor:
        for name in "ab":
            await use(supervisor, name)
        await supervisor.sleep("b")

        class Looks(Surroundings):
            def __init__(self, around: Surroundings) -> None:
                self.around = around

            def changed(self) -> None:
                servers = supervisor.servers.values()
                up.append({one.model.id for one in servers if one.snapshot().state in HOLDS_MEMORY})
                self.around.changed()

        for server in supervisor.servers.values():
            server.around = Looks(server.around)
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await use(supervisor, "a")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            while supervisor.servers["a"].snapshot().wish is not Wish.SERVE:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(use, supervisor, "b")
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            leaving.cancel()
        await trio.sleep(100)
        assert up
        assert all(len(names) < 2 for names in up)


async def test_at_equal_times_the_model_stops(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """A sleep that lasts no time is not worth its command."""
    async with supervise(two(sleeper(sleepTtl=60, ttl=60), B)) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(61)
        assert state(supervisor) is State.STOPPED
    said = [line["event"] for line in log_lines if "TTL" in line["event"]]
    assert said == ["<a> Unloading model, TTL of 60s reached"]


async def test_a_lease_on_a_process_that_is_gone_counts_no_more(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Its client may not read for hours, but that does not keep the next process in use."""
    async with (
        supervise(two(sleeper(drainTimeout=30), B)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(use, supervisor, "a", 5000)
        await trio.sleep(1)
        await supervisor.unload("a")
        await supervisor.load("a")
        assert supervisor.servers["a"].snapshot().in_flight == 0
        assert (await supervisor.sleep("a")).state is State.ASLEEP
        with trio.fail_after(10):
            await use(supervisor, "b")
        await trio.sleep(6000)
        assert supervisor.servers["a"].snapshot().in_flight == 0


async def test_requests_that_hold_up_a_sleep_for_too_long_are_cut(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """llamadoze stops the model, because nobody knows what a sleep would do to the requests."""
    async with (
        supervise(two(sleeper(drainTimeout=30), B)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(use, supervisor, "a", 1000)
        await trio.sleep(1)
        began = trio.current_time()
        with pytest.raises(ModelFailed, match="requests were still running after 30s"):
            await supervisor.sleep("a")
        assert trio.current_time() - began == pytest.approx(30)
        assert state(supervisor) is State.STOPPED
        nursery.cancel_scope.cancel()
    assert "+ sleep 1" not in programs.history
    assert "<a> requests were still running after 30s (drainTimeout), falling back to Stop()" in [
        line["event"] for line in log_lines
    ]


async def test_requests_that_end_in_time_are_not_cut(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The limit counts from the wish to sleep, and a later sleep has its own limit."""
    async with (
        supervise("drainTimeout: 30\n" + two(sleeper(), B)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(use, supervisor, "a", 29)
            await trio.sleep(3)
            assert (await supervisor.sleep("a")).state is State.ASLEEP


async def test_a_request_that_ends_with_the_limit_is_not_cut(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """At that moment nothing is in the way of the sleep any more."""
    async with (
        supervise(two(sleeper(drainTimeout=30), B)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(use, supervisor, "a", 31)
        while not supervisor.servers["a"].snapshot().in_flight:
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert (await supervisor.sleep("a")).state is State.ASLEEP


async def test_without_a_limit_requests_may_take_their_time(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """`drainTimeout: 0` means no limit: as in llama-swap, a running request is never cut."""
    async with (
        supervise("drainTimeout: 0\n" + two(sleeper(), B)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(use, supervisor, "a", 50_000)
        await trio.sleep(1)
        assert (await supervisor.sleep("a")).state is State.ASLEEP
        assert trio.current_time() > 50_000


async def test_a_model_may_have_its_own_limit_to_become_ready(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """A large model gets its time, and other models fail early."""
    text = "healthCheckTimeout: 60\n" + two(model("serve a", readyTimeout=900), B)
    async with supervise(text, FakeProbe({"a", "b"})) as supervisor:
        for name, limit in (("a", 900), ("b", 60)):
            began = trio.current_time()
            with pytest.raises(ModelFailed, match=f"not ready within {limit}s"):
                await use(supervisor, name)
            assert trio.current_time() - began == pytest.approx(limit, rel=0.01)


async def test_an_address_that_leads_nowhere_is_a_failure_with_its_reason(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze does not refuse the file for this, because the other models work."""
    async with supervise(two("{cmd: serve a, proxy: 'localhost:80'}", B)) as supervisor:
        with pytest.raises(ModelFailed, match="proxy leads nowhere: it must be"):
            await use(supervisor, "a")
        await use(supervisor, "b")
    assert "+ serve a" not in programs.history
