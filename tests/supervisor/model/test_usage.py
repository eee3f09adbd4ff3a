"""Tasks that wait for conditions: each is woken when its condition is true, and only then."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
import trio
from trio.testing import MockClock

from supervisor.model.usage import Stir, Usage


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts how often each task runs, from when the instrument is added."""

    of: Counter[str] = attrs.field(factory=Counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name] += 1


@attrs.define(eq=False)
class Waiting:
    """Tasks that wait for numbers to be reached, and which of them have gone on."""

    stir: Stir = attrs.field(factory=Stir)
    number: int = 0
    reached: list[int] = attrs.field(factory=list)

    async def wait(self, number: int) -> None:
        await self.stir.when(lambda: self.number >= number)
        assert self.number >= number
        self.reached.append(number)

    def become(self, number: int) -> None:
        self.number = number
        self.stir()


async def test_each_is_woken_when_its_condition_holds(
    autojump_clock: MockClock,
) -> None:
    """Before that the task runs no step, however often something changes."""
    waiting, steps = Waiting(), Steps()
    async with trio.open_nursery() as nursery:
        for number in (3, 1, 2, 3):
            nursery.start_soon(waiting.wait, number, name=f"for {number}")
        await trio.sleep(1)
        trio.lowlevel.add_instrument(steps)
        for number in range(4):
            for _ in range(5):
                waiting.become(number)
            await trio.sleep(1)
            assert sorted(waiting.reached) == [n for n in (1, 2, 3, 3) if n <= number]
        trio.lowlevel.remove_instrument(steps)
    assert [steps.of[f"for {n}"] for n in (1, 2, 3)] == [1, 1, 2]
    assert not waiting.stir._waiting


async def test_what_holds_already_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The wait ends without any further change."""
    waiting = Waiting(number=5)
    await waiting.wait(5)
    assert waiting.reached == [5]


async def test_what_holds_no_more_when_one_runs_is_waited_for_again(
    autojump_clock: MockClock,
) -> None:
    """The condition was true for part of a step only, or another task was faster."""
    waiting = Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.wait, 1)
        await trio.sleep(1)
        waiting.become(1)
        waiting.become(0)
        await trio.sleep(1)
        assert waiting.reached == []
        waiting.become(1)
        await trio.sleep(1)
        assert waiting.reached == [1]


async def test_who_is_cancelled_is_forgotten(autojump_clock: MockClock) -> None:
    """Its condition is no longer asked, and the other tasks go on waiting."""
    waiting, asked = Waiting(), 0

    def is_so() -> bool:
        nonlocal asked
        asked += 1
        return False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.wait, 1)
        with trio.move_on_after(1):
            await waiting.stir.when(is_so)
        before = asked
        waiting.become(0)
        assert asked == before
        assert len(waiting.stir._waiting) == 1
        waiting.become(1)
    assert waiting.reached == [1]


async def test_who_waits_because_of_a_change_waits_for_the_next(autojump_clock: MockClock) -> None:
    """A task that goes on may wait for something else at once."""
    waiting = Waiting()

    async def climb() -> None:
        for number in range(1, 50):
            await waiting.wait(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(climb)
        for number in range(1, 50):
            await trio.sleep(1)
            waiting.become(number)
    assert waiting.reached == list(range(1, 50))


async def test_only_the_last_of_several_leases_wakes_those_who_wait_for_the_end(
    autojump_clock: MockClock,
) -> None:
    """Requests of a busy model end by the hundred, and only the last must wake the waiters."""
    usage, steps, ended = Usage(Stir()), Steps(), []

    async def wait() -> None:
        await usage.stir.when(lambda: usage.in_flight == 0)
        ended.append(trio.current_time())

    leases = [usage.take() for _ in range(100)]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait, name="waits")
        await trio.sleep(1)
        trio.lowlevel.add_instrument(steps)
        began = trio.current_time()
        for lease in leases:
            assert not ended
            assert not steps.of["waits"]
            await trio.sleep(1)
            lease.give_back()
    trio.lowlevel.remove_instrument(steps)
    assert ended == pytest.approx([began + 100] * 3)
    assert steps.of["waits"] == 3


async def test_idle_time_counts_from_the_last_of_several_leases(autojump_clock: MockClock) -> None:
    """A new lease starts the idle time anew, and so does a waiting request that leaves."""
    usage, ended = Usage(Stir()), []

    async def idle() -> None:
        await usage.idle_for(10)
        ended.append(trio.current_time() - began)

    began = trio.current_time()
    usage.restart_idle_time()
    async with trio.open_nursery() as nursery:
        first, second = usage.take(), usage.take()
        nursery.start_soon(idle)
        await trio.sleep(20)
        second.give_back()
        await trio.sleep(20)
        first.give_back()
        await trio.sleep(5)
        usage.add_waiter()
        await trio.sleep(20)
        usage.remove_waiter()
        await trio.sleep(9)
        usage.take().give_back()
    assert ended == pytest.approx([84])


async def test_the_end_of_a_life_ends_its_leases_and_is_told(autojump_clock: MockClock) -> None:
    """A lease that is given back after that counts for no later life."""
    usage = Usage(Stir())
    lease = usage.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(usage.stir.when, lambda: not usage.in_flight)
        await trio.sleep(1)
        usage.end_life()
    new = usage.take()
    lease.give_back()
    assert usage.in_flight == 1
    new.give_back(cut=True)
    assert usage.in_flight == 0
    assert usage.cut_at == trio.current_time()
