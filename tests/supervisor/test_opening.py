"""What runs beside the models is kept up: a fault in it ends nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from supervisor import State
from supervisor.states.racing import BEFORE_IT_IS_BEGUN_ANEW, kept_up
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model, supervise
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

SAID = "Internal error; llamadoze restarts this part of itself"


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("", [KeyError("x")])])
async def test_a_part_that_fails_is_begun_anew_after_a_second(
    autojump_clock: MockClock, log_lines: LogLines, error: Exception
) -> None:
    """The log has the error of the part."""
    begun: list[float] = []

    async def part() -> None:
        begun.append(trio.current_time())
        if len(begun) < 3:
            raise error
        await trio.sleep_forever()

    with trio.move_on_after(60):
        await kept_up(part)
    assert [when - begun[0] for when in begun] == [0, 1, 2]
    assert BEFORE_IT_IS_BEGUN_ANEW == 1
    assert events(log_lines) == [SAID] * 2
    assert all(line["exc_info"] for line in log_lines)


async def test_a_part_that_returns_is_begun_anew_too(
    autojump_clock: MockClock, log_lines: LogLines
) -> None:
    """Nothing is logged, because nothing has failed."""
    begun: list[float] = []

    async def part() -> None:
        begun.append(trio.current_time())

    with trio.move_on_after(2.5):
        await kept_up(part)
    assert len(begun) == 3
    assert events(log_lines) == []


async def test_what_is_no_fault_of_ours_ends_a_part(
    autojump_clock: MockClock, log_lines: LogLines
) -> None:
    """For example, nothing may hold up the end of the daemon."""

    async def part() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await kept_up(part)
    assert events(log_lines) == []


async def test_models_serve_on_while_a_part_fails_again_and_again(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The part that fails here is the look for programs that models yield to."""

    async def fails(_: Any) -> tuple[str, ...]:
        raise ValueError("a file that nobody foresaw")

    monkeypatch.setattr("supervisor.opening.programs_now", fails)
    text = f"{{yieldTo: [game], models: {{a: {model('serve a')}}}}}"
    async with supervise(text) as supervisor:
        await use(supervisor, "a", 5)
        assert state(supervisor, "a") is State.READY
        assert await use(supervisor, "a") is not None
    assert 3 <= events(log_lines).count(SAID) <= 7
    assert programs.history.count("+ serve a") == 1
