"""A start that fails beside sleepers: llamadoze tries it once without them, and learns from it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock

from configschema import Model
from supervisor import ModelFailed, State, Supervisor
from supervisor.model.crowding import Need, Room
from supervisor.sleep.readiness import Probe
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model, supervise
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

A = model("serve a")
SLEEPERS = {name: model(f"serve {name}", cmdSleep="sleep 1", cmdWake="sleep 1") for name in "bcd"}


def test_a_start_is_tried_once_more_and_what_helped_is_kept() -> None:
    """From then on, llamadoze makes the room before each start."""
    room = Room()
    assert not room.must_be_made
    assert room.start_failed(beside_sleepers=True)
    assert room.must_be_made
    room.start_was_good()
    assert (room.need, room.must_be_made) == (Need.KNOWN, True)
    assert not room.start_failed(beside_sleepers=True)
    assert room.must_be_made


def test_what_did_not_help_is_not_done_again() -> None:
    """The start fails for another reason; after a good start, that may have changed."""
    room = Room()
    assert room.start_failed(beside_sleepers=True)
    assert not room.start_failed(beside_sleepers=True)
    assert not room.must_be_made
    assert not room.start_failed(beside_sleepers=True)
    room.start_was_good()
    assert room.start_failed(beside_sleepers=True)


def test_a_start_that_fails_alone_teaches_nothing() -> None:
    """No sleeper was in its way."""
    room = Room()
    assert not room.start_failed(beside_sleepers=False)
    room.start_was_good()
    assert (room.need, room.must_be_made) == (Need.UNKNOWN, False)


def only_while_it_runs(programs: FakePrograms) -> Probe:
    """Return a probe: a program that has ended answers nothing."""

    async def probe(one: Model) -> str | None:
        await trio.lowlevel.checkpoint()
        running = (child for child in programs.running.values() if child.argv == one.cmd.argv)
        return None if any(child.status is None for child in running) else "refused"

    return probe


def supervising(programs: FakePrograms, **models: str) -> AbstractAsyncContextManager[Supervisor]:
    """Open a supervisor of these models."""
    text = "models: {" + ", ".join(f"{name}: {one}" for name, one in models.items()) + "}"
    return supervise(text, only_while_it_runs(programs))


async def test_a_start_that_fails_beside_sleepers_is_made_again_without_them(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The waiting request is served; next time llamadoze stops the sleepers before the start."""
    programs.cramped.add("serve a")
    async with supervising(programs, a=A, **SLEEPERS) as supervisor:
        for name in ("b", "c"):
            await use(supervisor, name)
        began = trio.current_time()
        await use(supervisor, "a")
        assert trio.current_time() - began < 5
        assert [state(supervisor, name) for name in "abcd"] == [State.READY] + 3 * [State.STOPPED]
        assert programs.history.count("+ serve a") == 2
        assert supervisor.servers["a"].backoff.failures == 0
        await use(supervisor, "b")
        await use(supervisor, "a")
        assert programs.history.count("+ serve a") == 3
        assert programs.history[-2:] == ["- serve b", "+ serve a"]
    said = events(log_lines)
    again = "<a> The start failed while others slept; llamadoze tries again without them: "
    assert [line for line in said if line.startswith(again)] == [f"{again}b, c"]
    assert said.count("<b> Stopping sleeping model: 'a' needs its room") == 2


async def test_sleepers_are_stopped_in_the_order_of_their_value(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The sleeper that is likely to save the least is first: here, the one idle for longest."""
    programs.cramped.add("serve a")
    async with supervising(programs, a=A, **SLEEPERS) as supervisor:
        for name in ("c", "d", "b"):
            await use(supervisor, name)
            await trio.sleep(100)
        await use(supervisor, "a")
    stopped = [line[1] for line in events(log_lines) if "Stopping sleeping model: 'a'" in line]
    assert stopped == ["c", "d", "b"]


async def test_a_start_that_fails_without_them_too_is_told_and_costs_no_more_sleepers(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """After one try it is known that the sleepers are not the cause."""
    programs.broken.add("serve a")
    async with supervising(programs, a=A, **SLEEPERS) as supervisor:
        await use(supervisor, "b")
        with pytest.raises(ModelFailed, match="exited with status 1 while starting"):
            await use(supervisor, "a")
        assert programs.history.count("+ serve a") == 2
        assert state(supervisor, "b") is State.STOPPED
        await use(supervisor, "b")
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
        assert programs.history.count("+ serve a") == 3
        assert state(supervisor, "b") is State.ASLEEP
    assert len([line for line in events(log_lines) if "tries again without them" in line]) == 1


async def test_a_start_that_nobody_waits_for_any_more_is_not_made_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze stops no sleeper for such a start."""
    programs.cramped.add("serve a")
    async with supervising(programs, a=A, **SLEEPERS) as supervisor:
        await use(supervisor, "b")
        programs.cramped.clear()
        await use(supervisor, "a")
        assert state(supervisor, "b") is State.ASLEEP
        programs.of("serve", "a").exit(1)  # a death while it serves is no failure of a start
        await trio.sleep(0.1)
        assert state(supervisor, "b") is State.ASLEEP
