"""The requirement's integration tests with its own numbers, real processes and real time."""

from __future__ import annotations

import attrs
import pytest
import trio

from configschema.keys.fields import Timeout
from supervisor import State, open_supervisor
from supervisor.sleep.contact import Contact
from tests.fakes import FakeCalls, FakeProbe
from tests.supervisor.helpers import parse_models
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

pytestmark = pytest.mark.slow


def config(sleep: str = "true", wake: str = "true", **more: object) -> dict[str, object]:
    return {"cmd": "sleep 2001", "cmdSleep": sleep, "cmdWake": wake, **more}


B: dict[str, object] = {"cmd": "sleep 2002"}


@pytest.mark.parametrize(("timeout", "slept"), [(10, False), (20, True)])
async def test_a_sleep_of_15_seconds_against_10_and_20(
    log_lines: LogLines, timeout: int, slept: bool
) -> None:
    """With 10 s the sleep times out and the model is stopped; with 20 s the model sleeps."""
    models = parse_models(a=config(sleep="sleep 15", cmdSleepTimeout=timeout), b=B)
    async with open_supervisor(models, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        assert trio.current_time() - began == pytest.approx(min(15, timeout), abs=1)
        assert state(supervisor, "a") is (State.ASLEEP if slept else State.STOPPED)
    said = "<a> cmdSleep timed out after 10s, falling back to Stop()" in events(log_lines)
    assert said is not slept


@pytest.mark.parametrize(("timeout", "woke"), [(30, False), (60, True)])
async def test_a_wake_of_45_seconds_against_30_and_60(
    log_lines: LogLines, timeout: int, woke: bool
) -> None:
    """With 30 s the wake times out and the model is restarted; with 60 s the process stays."""
    models = parse_models(a=config(wake="sleep 45", cmdWakeTimeout=timeout), b=B)
    async with open_supervisor(models, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        began = trio.current_time()
        assert (await use(supervisor, "a") == first) is woke
        assert trio.current_time() - began == pytest.approx(min(45, timeout), abs=1)
    said = "<a> cmdWake timed out after 30s, restarting process" in events(log_lines)
    assert said is not woke


async def test_the_models_90_seconds_hold_against_a_global_30() -> None:
    """A sleep of 40 s completes under the model's own limit."""
    whole = parse_models(a=config(sleep="sleep 40", cmdSleepTimeout=90), b=B)
    whole = attrs.evolve(whole, cmd_sleep_timeout=Timeout(30))
    async with open_supervisor(whole, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
