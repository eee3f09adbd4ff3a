"""Models that fail, die or are stopped: what waiting requests are told, and what comes next."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from configschema import Model
from supervisor import ModelFailed, State, TooManyRequests, UnknownModel, Unloaded
from tests.fakes import FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

A = model("serve a", cmdSleep="sleep 5", cmdWake="sleep 5")
B = model("serve b")


@pytest.mark.parametrize(
    ("cmd", "reason"),
    [
        ("fail 3", "process exited with status 3 while starting"),
        ("missing", "cmd cannot be started: No such file or directory: 'missing'"),
    ],
)
async def test_a_model_that_cannot_start_fails_its_waiters(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, cmd: str, reason: str
) -> None:
    """Each waiting request is told once; a later request tries again after a pause."""
    probe = FakeProbe({"a"})
    async with supervise(two(model(cmd), B), probe) as supervisor:
        for expected in (0, 1):
            began = trio.current_time()
            with pytest.raises(ModelFailed, match=reason):
                await use(supervisor, "a")
            assert trio.current_time() - began == pytest.approx(expected, abs=0.2)
            assert state(supervisor, "a") is State.FAILED
    failed = f"<a> Model failed: {reason}. A request in"
    assert f"{failed} 1s or later starts it again" in events(log_lines)
    assert f"{failed} 2s or later starts it again after 2 failures in a row" in events(log_lines)


async def test_a_model_that_is_never_ready_fails_with_its_last_answer(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """The model fails after healthCheckTimeout, and its process is gone."""
    text = "healthCheckTimeout: 20\n" + two(A, B)
    async with supervise(text, FakeProbe({"a"})) as supervisor:
        with pytest.raises(ModelFailed, match="not ready within 20s: /health answered 503"):
            await use(supervisor, "a")
        assert trio.current_time() == pytest.approx(20, abs=0.1)
        assert programs.running == {}


async def test_a_hanging_check_does_not_outlast_its_limit(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Each question has its own limit, and all questions together have one, too."""

    async def silent(_: object) -> str | None:
        await trio.sleep_forever()
        return None

    async with supervise("healthCheckTimeout: 20\n" + two(A, B), silent) as supervisor:
        with pytest.raises(ModelFailed, match="not ready within 20s: no answer within 5s"):
            await use(supervisor, "a")


async def test_check_endpoint_none_is_ready_at_once(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """As in llama-swap, the model is ready without a check."""
    text = two(model("serve a", checkEndpoint="none"), B)
    async with supervise(text, FakeProbe({"a"})) as supervisor:
        await use(supervisor, "a")
        assert trio.current_time() == 0


async def test_death_while_starting_fails_the_waiters(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The waiting requests get the exit status at once, not after the time limit."""
    async with supervise(two(model("crash 2"), B), FakeProbe({"a"})) as supervisor:
        with pytest.raises(ModelFailed, match="process exited with status 7 while starting"):
            await use(supervisor, "a")
        assert trio.current_time() == pytest.approx(2, abs=0.1)


async def test_death_while_ready_is_seen_and_the_next_request_starts_it(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """llamadoze notices the death without a request."""
    async with supervise(two(A, B)) as supervisor:
        first = await use(supervisor, "a")
        programs.of("serve", "a").exit(9)
        await trio.testing.wait_all_tasks_blocked()
        snapshot = supervisor.servers["a"].snapshot()
        assert snapshot.failure == "process exited with status 9 while ready"
        assert await use(supervisor, "a") != first
        assert supervisor.servers["a"].snapshot().failure is None


async def test_death_while_asleep_is_seen_and_the_next_request_starts_it(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """llamadoze does not run cmdWake for a process that is gone."""
    async with supervise(two(A, B)) as supervisor:
        await use(supervisor, "a")
        await supervisor.sleep("a")
        programs.of("serve", "a").exit(-9)
        await trio.testing.wait_all_tasks_blocked()
        assert state(supervisor, "a") is State.FAILED
        await use(supervisor, "a")
        assert programs.history.count("+ sleep 5") == 1


async def test_who_waits_for_a_model_that_dies_while_it_wakes_is_served_by_the_next_process(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """cmdWake ends with the process; a process that dies in a wake mostly lacked memory."""
    async with supervise(two(A, B)) as supervisor, trio.open_nursery() as nursery:
        await use(supervisor, "a")
        await supervisor.sleep("a")

        async def die() -> None:
            await trio.sleep(2)
            programs.of("serve", "a").exit(1)

        nursery.start_soon(die)
        first = programs.of("serve", "a").pid
        began = trio.current_time()
        assert await use(supervisor, "a") != first
        assert trio.current_time() - began == pytest.approx(2, abs=0.2)  # so no backoff
        assert "- sleep 5" in programs.history


async def test_death_while_falling_asleep_does_not_stop_the_swap(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The other model gets its room, and a request for the dead model gets a new process."""
    async with supervise(two(A, B)) as supervisor, trio.open_nursery() as nursery:
        await use(supervisor, "a")

        async def die() -> None:
            await trio.sleep(2)
            nursery.start_soon(use, supervisor, "a")
            programs.of("serve", "a").exit(1)

        nursery.start_soon(die)
        await use(supervisor, "b")
        assert trio.current_time() == pytest.approx(2, abs=0.5)
        assert state(supervisor, "a") is State.FAILED


async def test_unloading_sends_the_waiters_away(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Otherwise their requests would start the model again at once."""
    probe = FakeProbe({"a"})
    async with supervise(two(A, B), probe) as supervisor, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Unloaded):
                await use(supervisor, "a")

        nursery.start_soon(wait)
        await trio.sleep(1)
        await supervisor.unload("a")
        assert state(supervisor, "a") is State.STOPPED


@pytest.mark.parametrize("when", [0, 3, 8])
async def test_unloading_ends_a_model_in_any_state(
    autojump_clock: MockClock, programs: FakePrograms, when: int
) -> None:
    """The model may be ready, falling asleep or asleep; a running cmdSleep is ended, too."""
    async with supervise(two(A, B)) as supervisor, trio.open_nursery() as nursery:
        await use(supervisor, "a")
        if when:
            nursery.start_soon(use, supervisor, "b")
            await trio.sleep(when)
        await supervisor.unload("a")
        assert state(supervisor, "a") is State.STOPPED
        assert "serve a" not in [" ".join(child.argv) for child in programs.running.values()]


async def test_the_limit_of_requests_counts_those_that_wait(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """At the limit, a further request is refused at once; a request that ends makes room."""
    text = two(model("serve a", concurrencyLimit=2), B)
    async with supervise(text) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", 10)
        nursery.start_soon(use, supervisor, "a", 10)
        await trio.sleep(1)
        with pytest.raises(TooManyRequests):
            await use(supervisor, "a")
        await trio.sleep(10)
        await use(supervisor, "a")


async def test_an_unknown_name_is_refused(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """An alias is a known name; a request for any other name is refused."""
    async with supervise(two(model("serve a", aliases="[gpt]"), B)) as supervisor:
        await use(supervisor, "gpt")
        with pytest.raises(UnknownModel, match="no model is called 'nope'"):
            async with supervisor.lease("nope"):
                pass


async def test_a_waiter_that_leaves_while_the_model_loads_leaves_no_lease(
    autojump_clock: MockClock,
    programs: FakePrograms,
) -> None:
    """The model goes on loading, and the number of its users is right."""
    probe = FakeProbe({"a"})
    async with supervise(two(A, B), probe) as supervisor:
        with trio.move_on_after(3):
            await use(supervisor, "a")
        probe.unready.clear()
        await trio.sleep(1)
        snapshot = supervisor.servers["a"].snapshot()
        assert (snapshot.state, snapshot.in_flight) == (State.READY, 0)


async def test_leaving_the_supervisor_ends_every_process(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Awake, asleep or in the middle of a command, every process is ended."""
    async with supervise(two(A, B)) as supervisor, trio.open_nursery() as nursery:
        await use(supervisor, "a")
        nursery.start_soon(use, supervisor, "b")
        await trio.sleep(2)
        assert state(supervisor, "a") is State.FALLING_ASLEEP
        nursery.cancel_scope.cancel()
    assert programs.running == {}


async def test_a_fault_of_the_program_ends_one_model_and_not_the_daemon(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The other models go on, and the log has the fault."""

    async def faulty(model: Model) -> str | None:
        if model.id == "a":
            raise ZeroDivisionError
        return None

    async with supervise(two(A, B), faulty) as supervisor:
        with pytest.raises(ModelFailed, match="internal error: ZeroDivisionError"):
            await use(supervisor, "a")
        await use(supervisor, "b")
    assert "<a> Internal error" in events(log_lines)
    assert programs.running == {}


async def test_two_requests_in_the_moment_after_a_failure_both_get_a_new_try(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The earlier failure does not fail these requests."""
    probe = FakeProbe({"a"})
    async with supervise("healthCheckTimeout: 15\n" + two(A, B), probe) as supervisor:
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
        probe.unready.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            nursery.start_soon(use, supervisor, "a")


async def test_two_models_called_in_the_same_moment_after_a_failure_take_turns(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A failed model that is called again keeps its turn even before its task has moved."""
    probe = FakeProbe({"a"})
    async with supervise("healthCheckTimeout: 15\n" + two(A, B), probe) as supervisor:
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
        probe.unready.clear()
        programs.history.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a", 5)
            nursery.start_soon(use, supervisor, "b", 5)
        starts = [line for line in programs.history if "serve" in line]
    assert starts[:2] in (["+ serve a", "+ serve b"], ["+ serve b", "- serve b"])
    assert trio.current_time() >= 25


@pytest.mark.parametrize("first", ["unload", "lease"])
async def test_an_unload_and_a_request_in_the_same_moment_both_end(
    autojump_clock: MockClock, programs: FakePrograms, first: str
) -> None:
    """The request is served by the old process or a new one, or it is refused; nothing hangs."""
    async with supervise(two(A, B)) as supervisor:
        pid = await use(supervisor, "a")

        async def request() -> None:
            with contextlib.suppress(Unloaded):
                async with supervisor.lease("a") as server:
                    assert server.snapshot().pid in {pid, *programs.running}

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                works: list[Callable[[], Awaitable[object]]] = [
                    partial(supervisor.unload, "a"),
                    request,
                ]
                for work in works if first == "unload" else works[::-1]:
                    nursery.start_soon(work)
