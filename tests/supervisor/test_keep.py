"""A kept model never makes room for another, whichever rule says which models run together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock

from supervisor import ModelFailed, NoRoom, State, Supervisor
from tests.fakes import FakePrograms
from tests.supervisor.gpus import FakeGpu
from tests.supervisor.helpers import model, supervise

RULES = {
    "one at a time": "",
    "groups": "\ngroups: {g: {swap: true, members: [a, b]}, h: {members: [c]}}",
    "matrix": "\nmatrix: {sets: {s: a, t: b & c}}",
    "memory": "\nrouting: {router: {use: memory}}",
}
ALL_RULES = pytest.mark.parametrize("rule", RULES)
SLEEPS = {"cmdSleep": "sleep 1", "cmdWake": "sleep 1"}


def one(name: str, **keys: object) -> str:
    return f"{name}: {model(f'serve {name}', memory='{gpu: 16}', **keys)}"


@asynccontextmanager
async def supervising(
    rule: str, rest: str = "", names: str = "bc", **keys: object
) -> AsyncIterator[Supervisor]:
    """Open a supervisor with a, which is kept and can sleep; the others are not and cannot."""
    models = [one("a", keep="true", **SLEEPS, **keys), *map(one, names)]
    text = f"models: {{{', '.join(models)}}}{RULES[rule]}{rest}"
    async with supervise(text) as supervisor:
        FakeGpu(supervisor, dict.fromkeys("abcd", 16.0)).install()
        yield supervisor


def state(supervisor: Supervisor, name: str) -> State:
    return supervisor.servers[name].snapshot().state


@ALL_RULES
async def test_who_cannot_run_beside_a_kept_model_is_told_who_holds_what(
    autojump_clock: MockClock, programs: FakePrograms, rule: str
) -> None:
    """The request is refused at once, and the kept model stays awake."""
    async with supervising(rule) as supervisor:
        await supervisor.load("a")
        began = trio.current_time()
        with pytest.raises(NoRoom) as caught:
            await supervisor.load("b")
        assert trio.current_time() - began < 2
        assert "'a' (keep: true)" in str(caught.value)
        assert caught.value.wait == inf
        assert supervisor.ready_in("b") is None
        assert state(supervisor, "a") is State.READY


@ALL_RULES
async def test_a_kept_model_comes_up_as_any_other_does(
    autojump_clock: MockClock, programs: FakePrograms, rule: str
) -> None:
    """Other models make room for it, and cannot come back then."""
    async with supervising(rule) as supervisor:
        await supervisor.load("b")
        await supervisor.load("a")
        assert state(supervisor, "b") is State.STOPPED
        with pytest.raises(NoRoom):
            await supervisor.load("b")


@ALL_RULES
async def test_a_kept_model_obeys_its_own_idle_times_and_an_operator(
    autojump_clock: MockClock, programs: FakePrograms, rule: str
) -> None:
    """When a kept model sleeps by its own idle time, others may run; a request wakes it."""
    async with supervising(rule, sleepTtl=60) as supervisor:
        await supervisor.load("a")
        await trio.sleep(62)
        assert state(supervisor, "a") is State.ASLEEP
        await supervisor.load("b")
        assert state(supervisor, "a") is State.ASLEEP
        await supervisor.load("a")
        assert (state(supervisor, "a"), state(supervisor, "b")) == (State.READY, State.STOPPED)
        await supervisor.sleep("a")
        assert state(supervisor, "a") is State.ASLEEP
        await supervisor.unload("a")
        await supervisor.load("b")
        assert state(supervisor, "a") is State.STOPPED
        assert programs.history.count("+ serve a") == 1


@ALL_RULES
async def test_a_kept_model_sleeps_for_a_pause(
    autojump_clock: MockClock, programs: FakePrograms, rule: str
) -> None:
    """A pause is an operator's wish, which also applies to a kept model."""
    async with supervising(rule) as supervisor:
        await supervisor.load("a")
        await supervisor.pause()
        assert state(supervisor, "a") is State.ASLEEP
        await supervisor.resume()
        assert state(supervisor, "a") is State.READY


@ALL_RULES
async def test_who_waits_for_a_kept_model_in_use_is_sent_away(
    autojump_clock: MockClock, programs: FakePrograms, rule: str
) -> None:
    """Requests for the kept model are not cut or held back, however long others would wait."""
    async with supervising(rule, "\nmaxWait: 1\ndrainTimeout: 5") as supervisor:
        async with supervisor.lease("a"):
            with pytest.raises(NoRoom):
                await supervisor.load("b")
            await trio.sleep(30)
            assert supervisor.servers["a"].is_serving
        assert state(supervisor, "a") is State.READY


async def test_a_matrix_keeps_what_is_kept_where_another_set_allows_it(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The first set would cost the same, but would make the kept model leave."""
    keys = [one("a", keep="true"), one("b"), one("c")]
    matrix = "\nmatrix: {sets: {s: c & b, t: c & a, u: a & b}}"
    async with supervise(f"models: {{{', '.join(keys)}}}{matrix}") as supervisor:
        for name in "abc":
            await supervisor.load(name)
        states = [state(supervisor, name) for name in "abc"]
        assert states == [State.READY, State.STOPPED, State.READY]


async def test_a_kept_sleeper_is_not_stopped_for_the_budget(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The kept model counts as a sleeper, so that others are stopped."""
    models = [one("a", keep="true", **SLEEPS), *(one(name, **SLEEPS) for name in "bc")]
    text = f"models: {{{', '.join(models)}}}\nmaxSleepers: 1"
    async with supervise(text) as supervisor:
        for name in "abc":
            await supervisor.load(name)
            await supervisor.sleep(name)
            await trio.sleep(5)
        states = [state(supervisor, name) for name in "abc"]
        assert states == [State.ASLEEP, State.STOPPED, State.STOPPED]


async def test_a_kept_sleeper_is_not_stopped_for_a_start_that_failed(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The start is not tried again, because no other model could make room."""
    programs.cramped.add("serve b")
    async with supervising("one at a time") as supervisor:
        await supervisor.load("a")
        await supervisor.sleep("a")
        with pytest.raises(ModelFailed):
            await supervisor.load("b")
        assert state(supervisor, "a") is State.ASLEEP
        assert programs.history.count("+ serve b") == 1


async def test_a_kept_sleeper_keeps_its_memory(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A model that needs more than it leaves is refused, and the sleeper is not stopped."""
    models = [one("a", keep="true", **SLEEPS), one("b")]
    text = f"models: {{{', '.join(models)}}}{RULES['memory']}"
    async with supervise(text) as supervisor:
        FakeGpu(supervisor, {"a": 16, "b": 16}, {"a": 12}).install()
        await supervisor.load("a")
        await supervisor.sleep("a")
        await trio.sleep(5)
        with pytest.raises(NoRoom) as caught:
            await supervisor.load("b")
        assert "'a' (keep: true) holds 12.0 GiB" in str(caught.value)
        assert state(supervisor, "a") is State.ASLEEP
