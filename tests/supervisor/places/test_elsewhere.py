"""Servers that live without llamadoze: found, started by a command that ends, gone, left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from configschema import parse
from supervisor import ModelFailed, State, open_supervisor
from supervisor.places.elsewhere import Elsewhere, ServerElsewhere
from supervisor.places.handles import ElsewhereHandle
from supervisor.places.running import CannotRun
from supervisor.processes.census import is_alive, start_of
from supervisor.sleep.contact import Contact
from supervisor.states.refusals import StillHeld
from supervisor.states.table import ENDED
from supervisor.succession.leftovers import settle_leftovers
from supervisor.succession.records import Record, fingerprint
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two
from tests.supervisor.places.servers import LIMITS, model_of, order_for, scales
from tests.supervisor.processes.families import running
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

B = model("serve b")
PROXY = "http://model.test:9"


def elsewhere(cmd: str = "", **keys: object) -> str:
    """Return a model whose server lives without its command."""
    return model(cmd, **({"detached": "true"} if cmd else {}), **keys)


async def later(seconds: float, act: Callable[[], object]) -> None:
    await trio.sleep(seconds)
    act()


async def test_a_server_that_is_there_at_the_start_is_taken_as_it_is(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The server serves, and llamadoze runs no command for it."""
    async with supervise(two(elsewhere("serve a"), B), FakeProbe()) as supervisor:
        await trio.testing.wait_all_tasks_blocked()
        assert state(supervisor, "a") is State.READY
        assert await use(supervisor, "a") is None
        assert isinstance(supervisor.servers["a"].snapshot().handle, ElsewhereHandle)
    assert programs.history == []
    assert "<a> Adopted server that was there already (ready)" in events(log_lines)


@pytest.mark.parametrize(
    ("wrong", "expected"), [("\0", State.ASLEEP), ("is_sleeping", State.READY)]
)
async def test_a_server_that_sleeps_at_the_start_is_known_to_sleep(
    autojump_clock: MockClock, programs: FakePrograms, wrong: str, expected: State
) -> None:
    """The server itself says whether it sleeps, and a request wakes it."""
    calls = FakeCalls(wrong)
    text = two(elsewhere(sleep="vllm"), B)
    async with supervise(text, FakeProbe(), calls) as supervisor:
        await trio.testing.wait_all_tasks_blocked()
        assert state(supervisor, "a") is expected
        if expected is State.ASLEEP:
            await use(supervisor, "a")
            assert f"POST {PROXY}/wake_up" in calls.made


async def test_a_server_that_comes_later_is_waited_for(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze cannot start it, so the request waits as long as a start may take."""
    probe = FakeProbe({"a"})
    async with supervise(two(elsewhere(), B), probe) as supervisor:
        with pytest.raises(ModelFailed, match="not ready within 120s"):
            await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 5, lambda: probe.unready.discard("a"))
            await use(supervisor, "a")
        assert state(supervisor, "a") is State.READY


async def test_a_server_that_comes_up_asleep_is_woken_for_who_waits(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze wakes it like a server that something else has put to sleep."""
    probe, calls = FakeProbe({"a"}), FakeCalls()
    async with supervise(two(elsewhere(sleep="vllm"), B), probe, calls) as supervisor:
        await trio.testing.wait_all_tasks_blocked()
        assert state(supervisor, "a") is State.STOPPED
        probe.unready.clear()
        await use(supervisor, "a")
        assert f"POST {PROXY}/wake_up" in calls.made


async def test_a_command_that_ends_has_started_its_server(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The end of the command is not the end of the server, before or after its first answer."""
    probe = FakeProbe({"a"})
    async with supervise(two(elsewhere("sleep 2"), B), probe) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 5, lambda: probe.unready.discard("a"))
            await use(supervisor, "a")
            assert trio.current_time() == pytest.approx(5, abs=0.3)
        await trio.sleep(100)
        assert state(supervisor, "a") is State.READY
        assert programs.history.count("+ sleep 2") == 1


async def test_a_command_that_fails_is_a_start_that_failed(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The request is told at once, not after the time of a start."""
    async with supervise(two(elsewhere("fail 3"), B), FakeProbe({"a"})) as supervisor:
        with pytest.raises(ModelFailed, match="process exited with status 3 while starting"):
            await use(supervisor, "a")
        assert trio.current_time() < 1


async def test_a_command_that_fails_after_its_server_answers_ends_nothing(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Once the server answers, its command no longer matters."""
    probe = FakeProbe({"a"})
    async with supervise(two(elsewhere("crash 5"), B), probe) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 1, lambda: probe.unready.discard("a"))
            await use(supervisor, "a")
        await trio.sleep(20)
        assert state(supervisor, "a") is State.READY


async def test_a_server_without_cmd_stop_is_left_alone_and_found_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """llamadoze can only forget the server, because nothing says how to end it."""
    async with supervise(two(elsewhere("serve a"), B)) as supervisor:
        await use(supervisor, "a")
        assert (await supervisor.unload("a")).state is State.STOPPED
        await use(supervisor, "a")
        assert state(supervisor, "a") is State.READY
    assert programs.history == []


async def test_cmd_stop_ends_a_server_and_its_silence_is_waited_for(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The next model starts only when the server is silent."""
    probe = FakeProbe()
    a = elsewhere("serve a", cmdStop="sleep 1")
    async with supervise(two(a, B), probe) as supervisor, trio.open_nursery() as nursery:
        await use(supervisor, "a")
        began = trio.current_time()
        nursery.start_soon(later, 4, lambda: probe.unready.add("a"))
        await use(supervisor, "b")
        assert trio.current_time() - began == pytest.approx(4, abs=0.3)
        assert state(supervisor, "a") is State.STOPPED
    assert programs.history[:2] == ["+ sleep 1", "- sleep 1"]


async def test_what_is_told_of_a_server_that_is_left_holds_no_password(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """Clients read why their model does not start, so the text must not have the password."""
    a = elsewhere("serve a", cmdStop="sleep 1", unloadTimeout=1, proxy="'http://me:hush@a.test:9'")
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        with pytest.raises(StillHeld, match="a server that answers at http://") as caught:
            await supervisor.unload("a")
        assert "hush" not in str(caught.value)
        assert "hush" not in supervisor.servers["a"].snapshot().left
    assert not any("hush" in str(line) for line in log_lines)


async def test_what_answers_after_its_cmd_stop_is_left_and_told(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The server counts as holding its memory until it falls silent by itself."""
    probe = FakeProbe()
    a = elsewhere("serve a", cmdStop="sleep 1", unloadTimeout=5)
    async with supervise(two(a, B), probe) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        with pytest.raises(StillHeld, match=f"a server that answers at {PROXY}"):
            await supervisor.unload("a")
        assert trio.current_time() - began == pytest.approx(6, abs=0.3)
        assert state(supervisor, "a") is State.STOPPING
        with pytest.raises(StillHeld):
            await use(supervisor, "b")
        probe.unready.add("a")
        with trio.fail_after(3):
            snapshot = await supervisor.servers["a"].reached(ENDED)
        assert snapshot.left == ""
        await use(supervisor, "b")
    said = "it was asked to stop and did not; end it by hand"
    assert any(said in line for line in events(log_lines))


async def test_a_server_that_falls_silent_has_failed_and_is_taken_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Only its check shows that the server is silent, and the check must fail three times."""
    probe = FakeProbe()
    async with supervise(two(elsewhere(), B), probe) as supervisor:
        await use(supervisor, "a")
        probe.unready.add("a")
        await trio.sleep(15)
        assert state(supervisor, "a") is State.READY
        with trio.fail_after(30):
            snapshot = await supervisor.servers["a"].reached(frozenset({State.FAILED}))
        assert "its check failed 3 times in a row: /health answered 503" in f"{snapshot.failure}"


@pytest.mark.parametrize(("was", "expected"), [("ready", State.READY), ("asleep", State.ASLEEP)])
async def test_a_server_of_an_earlier_daemon_goes_on_where_it_was(
    autojump_clock: MockClock, programs: FakePrograms, was: str, expected: State
) -> None:
    """The next daemon finds the server by its address alone."""
    config = parse(two(elsewhere("serve a", cmdSleep="sleep 1", cmdWake="sleep 1"), B)).config
    record = Record(
        model="a", handle=ElsewhereHandle(), port=None, state=was, fingerprint="", logs=True
    )
    contact = Contact(probe=FakeProbe(), call=FakeCalls())
    async with open_supervisor(config, contact, inherited={"a": record}) as supervisor:
        await trio.testing.wait_all_tasks_blocked()
        assert state(supervisor, "a") is expected
    assert programs.history == []


async def test_a_command_is_a_failure_only_before_its_server_has_answered(
    autojump_clock: MockClock,
) -> None:
    """Once the server has answered, the command's status does not matter."""
    server = ServerElsewhere(order_for(model_of(proxy=PROXY)), FakeProbe(), scales, was_there=False)
    for landed, status in ((False, 3), (True, None)):
        if landed:
            await server.landed()
        command: Any = FakePrograms().open_child(
            ["fail", "3"], env={}, on_output=lambda _: None, grace=1
        )
        async with command as server.command_process:
            found = None
            with trio.move_on_after(5):
                found = await server.exited()
            assert found == status


async def test_a_server_with_no_check_is_never_found_and_never_left(
    autojump_clock: MockClock,
) -> None:
    """Without a check, nothing shows whether the server is there."""
    one = model_of(proxy=PROXY, checkEndpoint="none")
    place = Elsewhere(FakeProbe(), scales)
    assert await place.find(one) is None
    assert await place.find(model_of(proxy=PROXY)) == ElsewhereHandle()
    async with place.take_over(order_for(one), ElsewhereHandle()) as server:
        server.ask = trio.lowlevel.checkpoint
    assert server.left is None
    async with place.take_over(order_for(model_of(proxy=PROXY)), ElsewhereHandle()) as server:
        server.ask = trio.lowlevel.checkpoint
    assert server.left is not None
    assert trio.current_time() == pytest.approx(LIMITS.unload, abs=0.2)


async def test_an_answer_that_hangs_holds_nobody_up(autojump_clock: MockClock) -> None:
    """An answer that does not come in time counts as none."""

    async def silent(_: object) -> str | None:
        await trio.sleep_forever()
        return None

    with trio.fail_after(3):
        assert await Elsewhere(silent, scales).find(model_of(proxy=PROXY)) is None


async def test_a_command_that_cannot_be_started_is_named() -> None:
    """The error names the command, as for any other model."""
    place = Elsewhere(FakeProbe({"a"}), scales)
    order = order_for(model_of(cmd="/no/such", detached=True, proxy=PROXY))
    with pytest.raises(CannotRun, match="cmd cannot be started: No such file"):
        async with place.start(order):
            raise AssertionError("it runs")


@pytest.mark.parametrize(("adopt", "up"), [(True, True), (True, False), (False, True)])
async def test_what_an_earlier_daemon_ran_to_start_a_server_ends(adopt: bool, up: bool) -> None:
    """llamadoze ends that command, but not the server, and takes the server over if it answers."""
    config = attrs.evolve(parse(f"models: {{a: {elsewhere('sleep 60')}}}").config, adopt=adopt)
    with running("sleep 60 & echo $!") as (process, pids):
        record = Record(
            model="a",
            handle=ElsewhereHandle(process.pid, start_of(process.pid) or 0),
            port=None,
            state="ready",
            fingerprint=fingerprint(config.models["a"]),
            logs=False,
        )
        contact = Contact(probe=FakeProbe(set() if up else {"a"}), call=FakeCalls())
        adopted = await settle_leftovers([record], config, contact)
        assert not is_alive(process.pid)
        assert all(map(is_alive, pids))  # one of them may be the server
    taken = attrs.evolve(record, handle=ElsewhereHandle(), logs=True)
    assert adopted == ({"a": taken} if up else {})
