"""A watched model that dies is started again without a request, as often as necessary."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from supervisor import ModelFailed, State, Supervisor
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model
from tests.supervisor.model.test_room import supervising
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

WATCHED = model("serve a", watch="true")
B = model("serve b")


def starts(programs: FakePrograms) -> int:
    return programs.history.count("+ serve a")


async def crash(supervisor: Supervisor, programs: FakePrograms) -> None:
    await use(supervisor, "a")
    programs.of("serve", "a").exit(9)
    await trio.testing.wait_all_tasks_blocked()
    assert state(supervisor, "a") is State.FAILED


@pytest.mark.parametrize("watch", [True, False])
async def test_a_model_that_dies_is_started_again_if_it_is_watched(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, watch: bool
) -> None:
    """A watched model starts after its backoff; other models wait for a request."""
    a = model("serve a", watch=f"{watch}".lower())
    async with supervising(programs, a=a, b=B) as supervisor:
        await crash(supervisor, programs)
        await trio.sleep(0.9)
        assert state(supervisor, "a") is State.FAILED
        await trio.sleep(0.3)
        assert state(supervisor, "a") is (State.READY if watch else State.FAILED)
        assert starts(programs) == 1 + watch
        assert supervisor.servers["a"].usage.in_flight == 0
    told = "<a> Started again after its failure (watch)"
    assert (told in events(log_lines)) == watch


async def test_a_start_that_fails_is_tried_again_later_each_time(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The next starts come after one, two, four and eight seconds, until one succeeds."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        await crash(supervisor, programs)
        programs.broken.add("serve a")
        counts = []
        for pause in (0.5, 1, 2, 4, 8, 3):
            await trio.sleep(pause)
            counts.append(starts(programs))
        assert counts == [1, 2, 3, 4, 5, 5]
        programs.broken.clear()
        await trio.sleep(16)
        assert state(supervisor, "a") is State.READY
        assert starts(programs) == 6


@pytest.mark.parametrize("after", [0.5, 2.0])
async def test_an_unload_ends_that(
    autojump_clock: MockClock, programs: FakePrograms, after: float
) -> None:
    """The operator may unload the model before the first start, or between two starts."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        await crash(supervisor, programs)
        programs.broken.add("serve a")
        await trio.sleep(after)
        count = starts(programs)
        await supervisor.unload("a")
        programs.broken.clear()
        await trio.sleep(1000)
        assert starts(programs) == count
        assert state(supervisor, "a") in (State.FAILED, State.STOPPED)
        await use(supervisor, "a")


async def test_a_model_that_never_came_up_is_not_started_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The request is told of the failure; only a model that has served is watched."""
    programs.broken.add("serve a")
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
        await trio.sleep(1000)
        assert starts(programs) == 1


async def test_a_model_that_made_room_is_not_brought_back_by_that(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The model was not wanted any more, so its end is no crash."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b", 100)
        assert state(supervisor, "b") is State.READY
        assert starts(programs) == 1


async def test_one_that_asks_meanwhile_has_the_same_new_process(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """One start serves the watch and the request."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        await crash(supervisor, programs)
        pid = await use(supervisor, "a")
        await trio.sleep(10)
        assert starts(programs) == 2
        assert supervisor.servers["a"].snapshot().pid == pid


async def test_it_dies_again_and_again_and_is_started_each_time(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """After each good run, the backoff begins anew."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        for count in (1, 2, 3):
            await crash(supervisor, programs)
            assert starts(programs) == count
            await trio.sleep(1.2)
            assert state(supervisor, "a") is State.READY
            await trio.sleep(100)


async def test_a_watched_model_that_dies_waits_for_its_turn(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The requests of another model are not cut for the watched one."""
    async with supervising(programs, a=WATCHED, b=B) as supervisor:
        await crash(supervisor, programs)
        async with supervisor.lease("b"):
            await trio.sleep(100)
            assert (state(supervisor, "a"), state(supervisor, "b")) == (State.FAILED, State.READY)
        await trio.sleep(5)
        assert state(supervisor, "a") is State.READY


async def test_the_daemon_ends_at_once_while_one_is_waited_for(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """No model is started after that."""
    with trio.fail_after(1):
        async with supervising(programs, a=WATCHED, b=B) as supervisor:
            await crash(supervisor, programs)
    assert starts(programs) == 1
