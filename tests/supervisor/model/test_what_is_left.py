"""What could not be ended holds its memory: no model starts there unless an operator allows it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from supervisor import ModelFailed, State, Supervisor
from supervisor.states.refusals import StillHeld
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model, supervise, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

A, B, C = (model(f"serve {name}") for name in "abc")
APART = """
groups:
  g: {swap: true, exclusive: false, members: [a, b]}
  h: {swap: true, exclusive: false, members: [c]}
"""
ALL = f"models: {{a: {A}, b: {B}, c: {C}}}{APART}"


async def stuck(supervisor: Supervisor, programs: FakePrograms) -> int:
    """Use a model and let its end fail; return the pid of what is left."""
    programs.unkillable.add("serve a")
    pid = await use(supervisor, "a")
    with pytest.raises(StillHeld, match=f"process {pid} of model 'a' could not be ended"):
        await supervisor.unload("a")
    assert pid
    return pid


async def test_a_model_whose_process_could_not_be_ended_stays_where_it_is(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The model is neither stopped nor failed, and its snapshot and the log say why."""
    async with supervise(two(A, B)) as supervisor:
        pid = await stuck(supervisor, programs)
        await trio.sleep(1000)
        snapshot = supervisor.servers["a"].snapshot()
        assert (snapshot.state, snapshot.left) == (State.STOPPING, f"process {pid}")
        programs.stuck.clear()
        await trio.sleep(1.1)
    words = f"<a> process {pid} could not be ended: it hangs in the kernel"
    (told,) = [line for line in log_lines if str(line["event"]).startswith(words)]
    assert told["log_level"] == "error"
    assert told["pids"] == [pid]
    assert "set ignoreLeftovers: true" in str(told["event"])


@pytest.mark.parametrize("name", ["a", "b"])
async def test_who_needs_the_room_is_sent_away_and_others_are_served(
    autojump_clock: MockClock, programs: FakePrograms, name: str
) -> None:
    """Later requests are refused, too, and at once."""
    async with supervise(ALL) as supervisor:
        await stuck(supervisor, programs)
        began = trio.current_time()
        with pytest.raises(StillHeld, match="to start models anyway"):
            await use(supervisor, name)
        await use(supervisor, "c")
        assert trio.current_time() == began
        assert supervisor.servers[name].usage.waiting == 0
        programs.stuck.clear()


async def test_those_who_wait_when_it_turns_out_are_sent_away(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The swap that the requests wait for does not come."""
    programs.unkillable.add("serve a")
    async with supervise(ALL) as supervisor:
        await use(supervisor, "a")
        with pytest.raises(StillHeld) as caught:
            await use(supervisor, "b")
        assert (caught.value.model, caught.value.holder) == ("b", "a")
        assert "+ serve b" not in programs.history
        programs.stuck.clear()


async def test_what_ends_by_itself_after_all_holds_nobody_up(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze looks for it every second, and then tells how the model ended."""
    async with supervise(two(A, B)) as supervisor:
        await stuck(supervisor, programs)
        await trio.sleep(50.5)
        assert state(supervisor, "a") is State.STOPPING
        programs.stuck.clear()
        await trio.sleep(1.1)
        snapshot = supervisor.servers["a"].snapshot()
        assert (snapshot.state in {State.FAILED, State.STOPPED}, snapshot.left) == (True, "")
        await use(supervisor, "b")
        programs.unkillable.clear()
        await use(supervisor, "a")


async def test_an_unload_gives_up_what_is_left(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The operator says that the leftover does not matter, so both models can start."""
    async with supervise(two(A, B)) as supervisor:
        pid = await stuck(supervisor, programs)
        snapshot = await supervisor.unload("a")
        assert snapshot.left == ""
        assert f"process {pid} could not be ended" in f"{snapshot.failure}"
        await use(supervisor, "b")
        programs.unkillable.clear()
        assert await use(supervisor, "a") != pid


async def test_one_that_was_given_up_can_be_stuck_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """What an operator says of one process does not apply to any other."""
    async with supervise(two(A, B)) as supervisor:
        first = await stuck(supervisor, programs)
        await supervisor.unload("a")
        second = await stuck(supervisor, programs)
        assert first != second
        with pytest.raises(StillHeld):
            await use(supervisor, "b")
        await supervisor.unload("a")
        await use(supervisor, "b")


async def test_where_leftovers_are_ignored_nobody_waits_for_them(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The model counts as failed, and the failure names what is left."""
    programs.unkillable.add("serve a")
    async with supervise("ignoreLeftovers: true\n" + two(A, B)) as supervisor:
        pid = await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.FAILED
        assert f"process {pid} could not be ended" in f"{supervisor.server('a').at.failure}"


async def test_a_start_that_failed_and_could_not_be_ended_holds_its_room_too(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A process that hangs while it loads is the most likely leftover."""
    a = model("crash 5")
    programs.unkillable.add("crash 5")

    async def never(_: object) -> str | None:
        await trio.lowlevel.checkpoint()
        return "no"

    async with supervise(two(a, B), never) as supervisor:
        with pytest.raises((StillHeld, ModelFailed)):
            await use(supervisor, "a")
        with pytest.raises(StillHeld):
            await use(supervisor, "b")
        programs.stuck.clear()


async def test_the_daemon_ends_though_something_is_left(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The daemon can do nothing more about it."""
    with trio.fail_after(5):
        async with supervise(two(A, B)) as supervisor:
            await stuck(supervisor, programs)
    assert programs.stuck
    assert not any("Internal error" in line for line in events(log_lines))
