"""The models yield the memory to something else, and take it back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from supervisor import Paused, State, Supervisor
from tests.fakes import FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise

BESIDE = "\ngroups: {g: {swap: false, members: [a, b]}}"
MODELS = (
    "models: {a: "
    + model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    + ", b: "
    + model("serve b")
    + ", c: "
    + model("serve c")
    + "}"
    + BESIDE
)


def states(supervisor: Supervisor) -> list[State]:
    return [one.state for one in supervisor.snapshots()]


async def test_everything_sleeps_or_stops_and_comes_back(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Only what was awake comes back."""
    async with supervise(MODELS) as supervisor:
        for name in "cab":
            await supervisor.load(name)
        await supervisor.pause()
        assert states(supervisor) == [State.ASLEEP, State.STOPPED, State.STOPPED]
        await trio.sleep(100)
        await supervisor.resume()
        assert states(supervisor) == [State.READY, State.READY, State.STOPPED]


async def test_requests_end_before_and_others_wait(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """No request is cut or refused."""
    async with supervise(MODELS) as supervisor:
        async with trio.open_nursery() as nursery:
            async with supervisor.lease("b"):
                nursery.start_soon(supervisor.pause)
                await trio.sleep(10)
                nursery.start_soon(supervisor.load, "c")
                await trio.sleep(10)
                assert states(supervisor)[1] is State.READY
            await trio.sleep(10)
            assert states(supervisor) == [State.STOPPED] * 3
            await supervisor.resume()
        assert supervisor.servers["c"].snapshot().failure is None
        assert "+ serve c" in programs.history


async def test_requests_are_refused_where_that_is_wanted(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Requests that wait already are refused, too."""
    async with supervise(MODELS) as supervisor:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(Paused):
                    await supervisor.load("c")

            async with supervisor.lease("a"):
                nursery.start_soon(wait)
                await trio.sleep(1)
                nursery.start_soon(lambda: supervisor.pause(refuse=True))
                await trio.sleep(1)
                await wait()
        assert supervisor.is_paused
        await supervisor.resume()
        await supervisor.load("c")


async def test_a_model_that_comes_up_is_stopped(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The model starts again afterwards for the request that waits."""
    slow = MODELS.replace("groups", "healthCheckTimeout: 600\ngroups")
    probe = FakeProbe({"c"})
    async with supervise(slow, probe) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.load, "c")
            await trio.sleep(20)
            assert states(supervisor)[2] is State.STARTING
            await supervisor.pause()
            assert states(supervisor) == [State.STOPPED] * 3
            probe.unready.clear()
            await supervisor.resume()
        assert states(supervisor)[2] is State.READY


async def test_a_second_pause_forgets_nothing(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The models that the first pause put to sleep wake."""
    async with supervise(MODELS) as supervisor:
        await supervisor.load("a")
        await supervisor.pause()
        await supervisor.pause(refuse=True)
        await supervisor.resume()
        assert states(supervisor)[0] is State.READY


async def test_a_pause_that_is_called_off_is_answered(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A model that still drains for the pause goes on serving, without a stop and a start."""
    async with supervise(MODELS) as supervisor:
        for name in "ab":
            await supervisor.load(name)
        async with trio.open_nursery() as nursery:
            async with supervisor.lease("b"):
                nursery.start_soon(supervisor.pause)
                await trio.sleep(10)
                assert states(supervisor)[:2] == [State.ASLEEP, State.READY]
                await supervisor.resume()
            await trio.sleep(10)
        assert states(supervisor)[:2] == [State.READY, State.READY]
        assert "- serve b" not in programs.history


async def test_a_model_that_is_unloaded_meanwhile_stays_so(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The unload was the operator's last word, so the resume does not start the model."""
    async with supervise(MODELS) as supervisor:
        await supervisor.load("a")
        await supervisor.pause()
        await supervisor.unload("a")
        await supervisor.resume()
        assert states(supervisor)[0] is State.STOPPED


async def test_a_resume_goes_on_when_who_asked_for_it_has_left(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The daemon itself wakes what was awake, not a request."""
    async with supervise(MODELS) as supervisor:
        for name in "ab":
            await supervisor.load(name)
        await supervisor.pause()
        with trio.move_on_after(0.5):
            await supervisor.resume()
        await trio.sleep(10)
        assert states(supervisor) == [State.READY, State.READY, State.STOPPED]
