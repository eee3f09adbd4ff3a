"""Another configuration takes effect: what keeps its process, and what happens to the rest."""

from __future__ import annotations

import contextlib

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import Group
from supervisor import (
    Removed,
    State,
    Supervisor,
    SupervisorError,
    UnknownModel,
    open_supervisor,
)
from supervisor.sleep.contact import Contact
from supervisor.succession.changes import changes
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import parse_models

Settings = dict[str, object]
A: Settings = {"cmd": "serve a"}
B: Settings = {"cmd": "serve b"}
SLEEPER: Settings = {**A, "cmdSleep": "sleep 1", "cmdWake": "sleep 1"}


def state(supervisor: Supervisor, name: str) -> State:
    return supervisor.servers[name].snapshot().state


def test_only_what_a_process_knows_replaces_it() -> None:
    """A time limit, a name or a description does not replace it."""
    old = parse_models(a=A, b=B, c=A, d=A, e=A)
    new = parse_models(
        a=A,
        b={**B, "ttl": 5, "name": "Bee"},
        c={**A, "env": ["X=1"]},
        d={**A, "cmd": "serve d"},
        f=A,
    )
    found = changes(old, new)
    assert (found.kept, found.adjusted, found.replaced) == (("a",), ("b",), ("c", "d"))
    assert (found.removed, found.added) == (("e",), ("f",))
    assert str(found) == "added f; replaced c, d; removed e; adjusted b; 1 model unchanged"


async def test_what_has_not_changed_keeps_its_process(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """This is so for a model that is awake and for one that sleeps."""
    async with open_supervisor(
        parse_models(a=SLEEPER, b=B), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        await supervisor.load("a")
        await supervisor.load("b")
        before = [one.pid for one in supervisor.snapshots()]
        supervisor.reload(parse_models(a={**SLEEPER, "ttl": 900}, b=B, c=A))
        await trio.sleep(1)
        assert [one.pid for one in supervisor.snapshots()][:2] == before
        assert (state(supervisor, "a"), state(supervisor, "b")) == (State.ASLEEP, State.READY)
        assert supervisor.servers["a"].limits.sleep_ttl == 900
        await supervisor.load("c")


async def test_other_idle_times_hold_at_once(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """New idle times also apply to a model that is idle already."""
    async with open_supervisor(
        parse_models(a=A), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        await supervisor.load("a")
        await trio.sleep(100)
        supervisor.reload(parse_models(a={**A, "ttl": 60}))
        await trio.sleep(1)
        assert state(supervisor, "a") is State.STOPPED


async def test_a_changed_model_is_replaced_when_its_requests_have_ended(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The new process serves the requests that come meanwhile."""
    async with open_supervisor(
        parse_models(a=A), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        async with trio.open_nursery() as nursery, supervisor.lease("a"):
            supervisor.reload(parse_models(a={"cmd": "serve new"}))
            nursery.start_soon(supervisor.load, "a")
            await trio.sleep(50)
            assert programs.history == ["+ serve a"]
            assert supervisor.servers["a"].model.cmd.text == "serve a"
        assert programs.history == ["+ serve a", "- serve a", "+ serve new"]


async def test_a_changed_model_that_was_awake_comes_back_by_itself(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A model that slept is started only by a request."""
    models = {"a": SLEEPER, "b": B}
    async with open_supervisor(
        parse_models(**models), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        await supervisor.load("a")
        await supervisor.load("b")
        supervisor.reload(parse_models(a={**SLEEPER, "env": ["X=1"]}, b={"cmd": "serve new"}))
        await trio.sleep(1)
        assert (state(supervisor, "a"), state(supervisor, "b")) == (State.STOPPED, State.READY)
        assert "+ serve new" in programs.history


async def test_a_removed_model_ends_after_its_requests(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """No new request gets in, and waiting ones are told; then the model is forgotten."""
    async with open_supervisor(
        parse_models(a=A, b=B), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        refused: list[type[BaseException]] = []

        async def wait_for_b() -> None:
            try:
                await supervisor.load("b")
            except Removed as error:
                refused.append(type(error))

        async with trio.open_nursery() as nursery, supervisor.lease("a"):
            nursery.start_soon(wait_for_b)
            await trio.sleep(1)
            supervisor.reload(parse_models(c=A))
            await trio.sleep(1)
            try:
                await supervisor.load("a")
            except UnknownModel as error:
                refused.append(type(error))
            assert state(supervisor, "a") is State.READY
            nursery.start_soon(supervisor.load, "c")
            await trio.sleep(50)
            assert programs.history == ["+ serve a"]
        assert refused == [Removed, UnknownModel]
        assert programs.history == ["+ serve a", "- serve a", "+ serve a"]
        assert list(supervisor.servers) == ["c"]


async def test_a_model_that_comes_back_while_it_leaves_is_started_anew(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The old process of the model ends first."""
    async with open_supervisor(
        parse_models(a=A), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        async with supervisor.lease("a"):
            supervisor.reload(parse_models(b=B))
            await trio.sleep(1)
            supervisor.reload(parse_models(a={"cmd": "serve new"}))
            await trio.sleep(1)
        await supervisor.load("a")
        assert programs.history == ["+ serve a", "- serve a", "+ serve new"]
        assert list(supervisor.servers) == ["a"]


async def test_a_drain_for_a_change_is_bounded_by_drain_timeout(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """If the operator has set drainTimeout, the old process ends after that time."""
    bounded = {**A, "drainTimeout": 30}
    async with (
        open_supervisor(
            parse_models(a=bounded), Contact(probe=FakeProbe(), call=FakeCalls())
        ) as supervisor,
        supervisor.lease("a"),
    ):
        supervisor.reload(parse_models(a={**bounded, "cmd": "serve new"}))
        await trio.sleep(31)
        assert "- serve a" in programs.history


async def test_other_rules_hold_at_once(autojump_clock: MockClock, programs: FakePrograms) -> None:
    """For example, a new group may let models run side by side."""
    alone = parse_models(a=A, b=B)
    together = attrs.evolve(alone, groups={"g": Group(swap=False, members=("a", "b"))})
    async with (
        open_supervisor(alone, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor,
        supervisor.lease("a"),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(supervisor.load, "b")
        await trio.sleep(5)
        assert state(supervisor, "b") is State.STOPPED
        supervisor.reload(together)
        await trio.sleep(5)
        assert state(supervisor, "b") is State.READY


@pytest.mark.parametrize("left", [{"b": B}, {"a": {**SLEEPER, "cmd": "serve new"}, "b": B}])
@pytest.mark.parametrize("how", ["pause", "sleep"])
async def test_nothing_turns_a_change_into_a_sleep(
    autojump_clock: MockClock, programs: FakePrograms, left: dict[str, Settings], how: str
) -> None:
    """A process that must end after its requests does end, whatever else is asked meanwhile."""
    before = parse_models(a=SLEEPER, b=B)
    async with open_supervisor(before, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        async with supervisor.lease("a"), trio.open_nursery() as nursery:
            supervisor.reload(parse_models(**left))
            if how == "pause":
                nursery.start_soon(supervisor.pause)
            else:
                nursery.start_soon(put_to_sleep, supervisor, "a")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await supervisor.resume()
        await trio.sleep(100)
        assert "- serve a" in programs.history
        if "a" in left:
            await supervisor.load("a")
            assert supervisor.servers["a"].model.cmd.text == "serve new"
        else:
            assert list(supervisor.servers) == ["b"]


async def put_to_sleep(supervisor: Supervisor, name: str) -> None:
    with contextlib.suppress(SupervisorError):
        await supervisor.sleep(name)


async def test_quick_changes_of_mind_do_no_harm(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Here a model is removed, added and removed again before anything has moved."""
    async with open_supervisor(
        parse_models(a=A, b=B), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        await supervisor.load("a")
        for models in ({"b": B}, {"a": A, "b": B}, {"b": B}):
            supervisor.reload(parse_models(**models))
        await trio.sleep(1)
        assert list(supervisor.servers) == ["b"]
        await supervisor.load("b")


async def test_a_command_to_stop_that_is_taken_away_is_not_missed(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Without cmdStop, a signal asks the process to end."""
    async with open_supervisor(
        parse_models(a={**A, "cmdStop": "sleep 1"}), Contact(probe=FakeProbe(), call=FakeCalls())
    ) as supervisor:
        await supervisor.load("a")
        supervisor.reload(parse_models(a=A))
        await supervisor.unload("a")
        assert supervisor.servers["a"].snapshot().failure is None
        assert "+ sleep 1" not in programs.history
