"""Checks of a server that serves: it may be ill, or something else may have put it to sleep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from configschema import Call
from supervisor import State, Supervisor
from supervisor.model.checkup import MOST_FAILURES, WATCHED_EVERY
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

B = model("serve b")
SLEEPER = model("serve a", sleep="vllm")
WATCHED = model("serve a", watch="true")
QUESTION, WAKE = "GET http://model.test:9/is_sleeping", "POST http://model.test:9/wake_up"


class Sleepy(FakeCalls):
    """A server that says whether it sleeps, and can be put to sleep by anybody."""

    sleeps = False

    async def __call__(self, step: Call) -> str | None:
        await super().__call__(step)
        if step.url.endswith("/is_sleeping"):
            return None if str(step.holds).startswith("!") is not self.sleeps else "answered {}"
        if "/sleep" in step.url or "/wake_up" in step.url:
            self.sleeps = "/sleep" in step.url
        return None


@asynccontextmanager
async def in_use(supervisor: Supervisor, name: str = "a") -> AsyncIterator[None]:
    async with supervisor.lease(name):
        yield


async def test_a_server_that_somebody_else_puts_to_sleep_is_woken_for_its_requests(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The requests stay where they are, and the same process serves them."""
    calls = Sleepy()
    async with supervise(two(SLEEPER, B), calls=calls) as supervisor:
        pid = await use(supervisor, "a")
        async with in_use(supervisor):
            calls.sleeps = True
            with trio.fail_after(10):
                while WAKE not in calls.made:
                    await trio.sleep(0.1)
            await trio.sleep(0.1)
            snapshot = supervisor.servers["a"].snapshot()
            assert (snapshot.state, snapshot.pid, snapshot.in_flight) == (State.READY, pid, 1)
            assert not calls.sleeps
    warned = "<a> Something else put the server to sleep"
    assert [line for line in events(log_lines) if line.startswith(warned)] == [
        f"{warned}: its requests got no answer, and it says that it sleeps. llamadoze wakes it"
    ]
    assert programs.history.count("+ serve a") == 1


async def test_a_server_that_naps_by_itself_wakes_by_itself_for_its_requests(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """While it loads for a request, the server says that it sleeps; that is its own nap."""
    calls = FakeCalls()
    napper = model("serve a --sleep-idle-seconds 2", sleep="llama.cpp")
    async with supervise(two(napper, B), calls=calls) as supervisor:
        async with in_use(supervisor):
            await trio.sleep(60)
            assert state(supervisor, "a") is State.READY
        assert "GET http://model.test:9/props" in calls.made
        assert "POST http://model.test:9/tokenize" not in "\n".join(calls.made)
    assert not any("somebody else" in line for line in events(log_lines))


async def test_a_server_that_says_something_is_not_asked_whether_it_sleeps(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze also does not ask a server that is not in use, or that cannot sleep."""
    calls = Sleepy()
    async with supervise(two(SLEEPER, B), calls=calls) as supervisor:
        async with in_use(supervisor):
            for _ in range(60):
                await trio.sleep(1)
                supervisor.servers["a"].usage.heard += 1
        await trio.sleep(60)
        assert calls.made == []
        async with in_use(supervisor):
            await trio.sleep(10)
        assert QUESTION in "\n".join(calls.made)
    async with supervise(two(model("serve a"), B), calls=(calls := Sleepy())) as supervisor:
        async with in_use(supervisor):
            await trio.sleep(60)
        assert calls.made == []


async def failed_after(supervisor: Supervisor, limit: float) -> float | None:
    """Return the seconds until a model has failed; None if it does not in time."""
    began = trio.current_time()
    with trio.move_on_after(limit):
        await supervisor.servers["a"].reached(frozenset({State.FAILED}))
        return trio.current_time() - began
    return None


async def test_a_watched_server_that_is_ill_for_long_is_replaced(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The check must fail three times in a row, and the reason has the last answer."""
    probe = FakeProbe()
    async with supervise(two(WATCHED, B), probe) as supervisor:
        pid = await use(supervisor, "a")
        probe.unready.add("a")
        took = await failed_after(supervisor, 100)
        assert took
        assert (MOST_FAILURES - 1) * WATCHED_EVERY < took < (MOST_FAILURES + 1) * WATCHED_EVERY + 3
        failure = supervisor.servers["a"].snapshot().failure
        assert failure == "its check failed 3 times in a row: /health answered 503"
        probe.unready.clear()
        assert await use(supervisor, "a") != pid


async def test_a_good_answer_between_failures_makes_up_for_them(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Only failures in a row count."""
    asked: list[bool] = []

    async def probe(_: object) -> str | None:
        await trio.lowlevel.checkpoint()
        asked.append(len(asked) % 3 != 0)
        return "answered 500" if asked[-1] else None

    async with supervise(two(WATCHED, B), probe) as supervisor:
        await use(supervisor, "a")
        assert await failed_after(supervisor, 500) is None
        assert len(asked) > 20


async def test_a_check_that_gets_no_answer_is_one_that_failed(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A process that was stopped by SIGSTOP behaves like this."""
    hangs = trio.Event()

    async def probe(_: object) -> str | None:
        await trio.lowlevel.checkpoint()
        return await trio.sleep_forever() if hangs.is_set() else None

    async with supervise(two(WATCHED, B), probe) as supervisor:
        await use(supervisor, "a")
        hangs.set()
        assert await failed_after(supervisor, 100)
        assert "no answer within 5s" in f"{supervisor.servers['a'].snapshot().failure}"


@pytest.mark.parametrize(("watched", "used"), [(False, False), (True, True)])
async def test_a_server_is_not_checked_where_nobody_watches_it_or_while_it_works(
    autojump_clock: MockClock, programs: FakePrograms, watched: bool, used: bool
) -> None:
    """A server that computes may not answer its check in time."""
    probe = FakeProbe()
    a = WATCHED if watched else model("serve a")
    async with supervise(two(a, B), probe) as supervisor:
        await use(supervisor, "a")
        probe.unready.add("a")
        if used:
            async with in_use(supervisor):
                assert await failed_after(supervisor, 1000) is None
            assert await failed_after(supervisor, 100)
        else:
            assert await failed_after(supervisor, 1000) is None


async def test_a_server_under_suspicion_is_asked_at_once_also_while_it_is_used(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A request got no answer; if the check gets none either, llamadoze replaces the server."""
    probe = FakeProbe()
    async with supervise(two(model("serve a"), B), probe) as supervisor:
        await use(supervisor, "a")
        async with in_use(supervisor):
            probe.unready.add("a")
            supervisor.servers["a"].usage.suspect()
            took = await failed_after(supervisor, 30)
            assert took == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("what", ["answers", "is heard"])
async def test_a_server_that_shows_that_it_is_well_is_beyond_suspicion(
    autojump_clock: MockClock, programs: FakePrograms, what: str
) -> None:
    """A good answer to the check clears the server, and so does anything that it sends."""
    probe = FakeProbe()
    async with supervise(two(model("serve a"), B), probe) as supervisor:
        await use(supervisor, "a")
        usage = supervisor.servers["a"].usage
        probe.unready.add("a")
        usage.suspect()
        await trio.sleep(0.5)
        if what == "answers":
            probe.unready.clear()
        else:
            usage.heard += 1
        assert await failed_after(supervisor, 100) is None
        probe.unready.add("a")
        usage.suspect()  # a new suspicion counts from the beginning
        assert await failed_after(supervisor, 10) == pytest.approx(2, abs=0.5)


async def test_a_server_that_moves_is_not_checked(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The check may well fail during a sleep, and such failures do not count afterwards."""
    probe = FakeProbe()
    a = model("serve a", watch="true", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B), probe) as supervisor:
        pid = await use(supervisor, "a")
        probe.unready.add("a")
        await trio.sleep(25)  # two checks have failed
        await supervisor.sleep("a")
        await trio.sleep(1000)
        assert state(supervisor, "a") is State.ASLEEP
        probe.unready.clear()
        assert await use(supervisor, "a") == pid
        probe.unready.add("a")
        assert await failed_after(supervisor, 25) is None
