"""The requirement's integration tests with real processes and short times."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
import trio

from configschema import Limits
from supervisor import ModelFailed, State, Supervisor, open_supervisor
from supervisor.sleep.contact import Contact
from tests.conftest import processes_with
from tests.fakes import FakeCalls, FakeProbe
from tests.supervisor.helpers import parse_models
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use


async def swap(supervisor: Supervisor) -> None:
    await use(supervisor, "a")
    await use(supervisor, "b")


def limits(sleep: float = 60, wake: float = 60) -> dict[str, Limits]:
    return {"a": Limits(sleep=sleep, wake=wake, unload=2), "b": Limits(unload=2)}


def models(sleep: str = "true", wake: str = "true") -> Any:
    return parse_models(
        a={"cmd": "sleep 1001", "cmdSleep": sleep, "cmdWake": wake},
        b={"cmd": "sleep 1002"},
    )


@pytest.mark.parametrize(("limit", "expected"), [(0.2, State.STOPPED), (9, State.ASLEEP)])
async def test_a_sleep_of_half_a_second_against_less_and_more(
    log_lines: LogLines, limit: float, expected: State
) -> None:
    """If the sleep times out, the model is stopped; if it ends in time, the model sleeps."""
    config = models(sleep="sleep 0.5")
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), limits(sleep=limit)
    ) as supervisor:
        await swap(supervisor)
        assert state(supervisor, "a") is expected
        assert bool(processes_with("sleep 1001")) is (expected is State.ASLEEP)
    timed_out = "<a> cmdSleep timed out after 0.200s, falling back to Stop()"
    assert (timed_out in events(log_lines)) is (expected is State.STOPPED)


@pytest.mark.parametrize(("limit", "same"), [(0.2, False), (9, True)])
async def test_a_wake_of_half_a_second_against_less_and_more(
    log_lines: LogLines, limit: float, same: bool
) -> None:
    """If the wake times out, the model is restarted; if it ends in time, the process stays."""
    config = models(wake="sleep 0.5")
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), limits(wake=limit)
    ) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert (await use(supervisor, "a") == first) is same
    timed_out = "<a> cmdWake timed out after 0.200s, restarting process"
    assert (timed_out in events(log_lines)) is not same


async def test_a_sleep_command_of_a_shell_is_ended_with_all_its_children() -> None:
    """In `sh -c 'curl ... & wait'`, the child in the background must not go on."""
    config = models(sleep="sh -c 'sleep 1003 & wait'")
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), limits(sleep=0.2)
    ) as supervisor:
        await swap(supervisor)
        assert processes_with("sleep 1003") == []
        assert processes_with("sleep 1001") == []


async def test_the_commands_know_the_models_pid_and_environment() -> None:
    """${PID} is the pid of the running process, and the environment is the model's."""
    config = parse_models(
        a={
            "cmd": "sleep 1001",
            "env": ["ANSWER=42"],
            "cmdSleep": "sh -c 'echo pid ${PID} answer $ANSWER'",
            "cmdWake": "true",
        },
        b={"cmd": "sleep 1002"},
    )
    async with open_supervisor(config, Contact(probe=FakeProbe(), call=FakeCalls())) as supervisor:
        pid = await use(supervisor, "a")
        await use(supervisor, "b")
        assert supervisor.servers["a"].output.tail(1) == [f"pid {pid} answer 42"]


async def test_cmd_stop_asks_instead_of_sigterm() -> None:
    """The command ends the process, and no signal is sent before."""
    trap = "trap 'echo term' TERM; trap 'echo usr1; exit 0' USR1; while :; do sleep 0.01; done"
    config = parse_models(
        a={"cmd": f'sh -c "{trap}"', "cmdStop": "kill -USR1 ${PID}"}, b={"cmd": "sleep 1002"}
    )
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), limits()
    ) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(0.1)  # the shell sets its traps
        await supervisor.unload("a")
        assert supervisor.servers["a"].output.tail(2) == ["usr1"]


async def test_a_cmd_stop_that_fails_is_followed_by_sigterm(log_lines: LogLines) -> None:
    """SIGTERM follows at once, because waiting would tell the process nothing."""
    config = parse_models(a={"cmd": "sleep 1001", "cmdStop": "false"}, b={"cmd": "sleep 1002"})
    short = {"a": Limits(unload=30)}
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), short
    ) as supervisor:
        await use(supervisor, "a")
        await supervisor.unload("a")
        assert processes_with("sleep 1001") == []
    assert "<a> cmdStop exited with status 1, sending SIGTERM" in events(log_lines)


async def test_a_crash_names_its_last_words(log_lines: LogLines) -> None:
    """The operator reads the reason together with the failure."""
    config = parse_models(
        a={"cmd": "sh -c 'echo out of memory; exit 3'", "checkEndpoint": "/health"},
        b={"cmd": "sleep 1002"},
    )
    async with open_supervisor(
        config, Contact(probe=FakeProbe({"a"}), call=FakeCalls())
    ) as supervisor:
        with pytest.raises(Exception, match="status 3 while starting; last output: out of memory"):
            await use(supervisor, "a")


async def test_a_port_that_a_stranger_holds_is_a_failure_and_never_ready() -> None:
    """The stranger's answer to the check would be taken for the model's."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        config = parse_models(
            a={
                "cmd": f"{sys.executable} -S -c 'import time; time.sleep(60)'",
                "proxy": f"http://127.0.0.1:{port}",
            }
        )
        async with open_supervisor(
            config, Contact(probe=FakeProbe(), call=FakeCalls())
        ) as supervisor:
            with pytest.raises(ModelFailed, match=f"its port {port} is in use"):
                await use(supervisor, "a")
            stranger.close()
            await use(supervisor, "a")


async def test_what_a_failing_command_said_is_part_of_the_reason(log_lines: LogLines) -> None:
    """The command's output is the first thing that an operator would ask for."""
    config = models(sleep="sh -c 'echo trying; echo no such route >&2; exit 22'")
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), limits()
    ) as supervisor:
        await swap(supervisor)
    said = "<a> cmdSleep exited with status 22 (no such route), falling back to Stop()"
    assert said in events(log_lines)


async def test_the_last_words_are_those_of_this_process_and_no_other() -> None:
    """The output of an earlier process explains nothing."""
    script = "echo starting; echo no CUDA >&2; exit 7"
    config = parse_models(
        a={"cmd": f"sh -c '{script}'", "checkEndpoint": "/health"}, b={"cmd": "sleep 1002"}
    )
    async with open_supervisor(
        config, Contact(probe=FakeProbe({"a"}), call=FakeCalls())
    ) as supervisor:
        for _ in range(2):
            with pytest.raises(ModelFailed, match=r"last output: starting \| no CUDA$"):
                await use(supervisor, "a")


async def test_a_process_that_had_to_be_killed_is_named(log_lines: LogLines) -> None:
    """The operator may want to give the process more time, or fix it."""
    trap = "trap : TERM; while :; do sleep 0.01; done"
    config = parse_models(a={"cmd": f'sh -c "{trap}"'}, b={"cmd": "sleep 1002"})
    async with open_supervisor(
        config, Contact(probe=FakeProbe(), call=FakeCalls()), {"a": Limits(unload=0.2)}
    ) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(0.1)  # the shell sets its trap
        await supervisor.unload("a")
    assert "<a> Process did not end within 0.200s and was killed" in events(log_lines)
