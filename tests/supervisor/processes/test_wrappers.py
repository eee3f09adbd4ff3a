"""Processes that hide behind others in sessions of their own: they end with their life, too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import trio

from supervisor.processes import census
from supervisor.processes import child as child_module
from supervisor.processes.adopted import recognised
from supervisor.processes.census import TOKEN, is_alive, start_of
from supervisor.processes.child import Child, open_child, own
from supervisor.processes.commands import run_command, run_told
from supervisor.processes.kin import Kin
from supervisor.processes.output import NO_OUTPUT
from tests.supervisor.processes.families import (
    LEFT_BOTH,
    LEFT_ITS_ENVIRONMENT,
    LEFT_THE_SESSION,
    OWN,
    kill,
    pids_in,
    running,
    until_gone,
    until_said,
)

TIMEOUT = "timeout 60 sh -c 'echo $$; echo up; sleep 60; :'"
NESTED = "setsid timeout 60 setsid -w sh -c 'echo $$; echo up; sleep 60; :'"
LOOP = "echo $$; echo up; while :; do sleep 0.02; done"
HEARD = f"setsid sh -c 'trap \"echo heard; exit 0\" TERM; {LOOP}'"
DEAF = "setsid sh -c 'trap \"\" TERM; echo $$; echo up; while :; do sleep 60; done'"
WAITS = "while kill -0 $! 2>/dev/null; do wait $!; done"


async def end_of(script: str, grace: float) -> tuple[float, bytes, Child]:
    """Run a script until it says "up" and end it; check that nothing that it named lives on."""
    output: list[bytes] = []
    argv, env = ["sh", "-c", script], dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=grace, token=OWN) as child:
        pids = await until_said(output)
        assert all(map(is_alive, pids))
        began = time.monotonic()
    took = time.monotonic() - began
    alive = [pid for pid in pids if is_alive(pid)]
    kill(pids)
    assert (alive, child.left, len(pids)) == ([], (), len(pids) or 1)
    return took, b"".join(output), child


@pytest.mark.parametrize(
    "script",
    [
        f"{LEFT_THE_SESSION}\necho up; wait",
        f"{LEFT_BOTH}\necho up; sleep 60; :",
        f"{LEFT_ITS_ENVIRONMENT}\necho up; sleep 60; :",
        f"exec {TIMEOUT}",
        f"{TIMEOUT} & wait",
        NESTED,
    ],
)
async def test_what_hides_behind_a_wrapper_ends_at_once(script: str) -> None:
    """All of it obeys, so nothing waits for the grace."""
    took, _, child = await end_of(script, grace=10)
    assert took < 1
    assert not child.was_killed


@pytest.mark.parametrize("first", ["exec sleep 60", "trap '' TERM; while :; do sleep 60; done"])
async def test_what_has_left_all_but_its_parent_ends_though_that_ends_first(first: str) -> None:
    """Only its descent shows whose it is, and its descent is lost when its parent ends."""
    script = f"env -i setsid sh -c 'echo $$; echo up; sleep 60; :' & {first}"
    await end_of(script, grace=0.2)


async def test_what_has_left_all_but_its_parent_ends_without_a_grace() -> None:
    """This is how a command that has timed out ends, with what it has started."""
    output: list[bytes] = []
    argv = ["sh", "-c", "env -i setsid sleep 60 & echo $!; exec sleep 60"]
    with trio.move_on_after(0.3):
        await run_told(argv, env=dict(os.environ), on_output=output.append)
    pids = pids_in(b"".join(output))
    alive = [pid for pid in pids if is_alive(pid)]
    kill(pids)
    assert (alive, len(pids)) == ([], 1)


@pytest.mark.parametrize("script", [LEFT_BOTH, LEFT_THE_SESSION])
async def test_what_a_crash_leaves_in_other_sessions_is_ended(script: str) -> None:
    """The first process has ended by itself."""
    output: list[bytes] = []
    argv, env = ["sh", "-c", f"{script}\necho up; sleep 0.1; exit 7"], dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=5, token=OWN) as child:
        assert await child.exited() == 7
        pids = await until_said(output)
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))


async def test_one_that_is_about_to_become_another_program_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While execve(2) goes on, which may take a moment, the kernel shows no environment."""
    read, output = census._read, list[bytes]()
    first_look: list[float] = []
    argv, env = ["sh", "-c", f"{LEFT_BOTH}\necho up; sleep 0.1; exit 7"], dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=5, token=OWN) as child:
        (pid,) = await until_said(output)
        await child.exited()

        def read_in_that_moment(path: str, most: int) -> bytes:
            if path == f"/proc/{pid}/environ":
                first_look.append(time.monotonic())
                if time.monotonic() - first_look[0] < 0.05:
                    return b""
            return read(path, most)

        monkeypatch.setattr(census, "_read", read_in_that_moment)
    alive = is_alive(pid)
    kill([pid])
    assert first_look
    assert not alive


async def test_the_request_to_end_reaches_other_sessions_at_once() -> None:
    """The first process waits for the others, so llamadoze must not wait for it first."""
    script = f"trap : TERM; {HEARD} & {WAITS}; echo bye"
    took, said, child = await end_of(script, grace=10)
    assert took < 1
    assert said.endswith(b"heard\nbye\n")
    assert not child.was_killed


@pytest.mark.parametrize("script", [f"{DEAF} & wait", f"{DEAF} & exec sleep 60", DEAF])
async def test_who_ignores_the_request_in_another_session_is_killed_after_the_grace(
    script: str,
) -> None:
    """It is not killed before, and the kill is reported."""
    took, _, child = await end_of(script, grace=0.3)
    assert 0.3 <= took < 1.3
    assert child.was_killed


async def test_a_way_to_ask_is_taken_and_what_ends_slowly_has_its_grace() -> None:
    """SIGTERM reaches only what is left when the first process has ended."""
    output: list[bytes] = []
    script = f"trap 'exit 0' USR1; {HEARD} & echo $!; wait"
    argv, env = ["sh", "-c", script], dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=5, token=OWN) as child:
        pids = await until_said(output)

        async def ask() -> None:
            os.kill(child.pid, signal.SIGUSR1)
            await trio.lowlevel.checkpoint()

        child.ask = ask
    assert b"".join(output).endswith(b"heard\n")
    assert not any(map(is_alive, pids))
    assert not child.was_killed


async def test_what_is_let_go_lives_on_with_all_it_has(tmp_path: Path) -> None:
    """Its output still goes to its file; a process that writes to a pipe cannot be let go."""
    log = tmp_path / "log"
    output: list[bytes] = []
    script = f"{LEFT_THE_SESSION}; {LEFT_BOTH}; echo up; while :; do sleep 0.02; echo more; done"
    argv, env = ["sh", "-c", script], dict(os.environ)
    async with open_child(
        argv, env=env, on_output=output.append, grace=5, log_file=log, token=OWN
    ) as child:
        pids = [child.pid, *await until_said(output)]
        assert child.can_be_let_go
        child.let_go()
    try:
        assert all(map(is_alive, pids))
        size = log.stat().st_size
        with trio.fail_after(2):
            while log.stat().st_size == size:
                await trio.sleep(0.01)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        kill(pids)
        await child.exited()
    async with open_child(["true"], env=env, on_output=output.append, grace=5) as child:
        assert not child.can_be_let_go


async def test_what_a_command_leaves_running_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon in a session of its own lives on; what stays in the command's group ends."""
    monkeypatch.setattr(child_module, "ESCAPEE_GRACE", 0.05)
    output: list[bytes] = []
    script = f"{LEFT_BOTH}; sleep 60 & echo $!"
    failure = await run_command(["sh", "-c", script], env=dict(os.environ), on_output=output.append)
    daemon, background = pids_in(b"".join(output))
    alive = is_alive(daemon), is_alive(background)
    kill([daemon, background])
    assert (failure, alive) == (None, (True, False))


@pytest.mark.parametrize("script", [LEFT_BOTH, LEFT_THE_SESSION, f"{DEAF} &"])
async def test_what_a_command_has_started_is_gone_when_its_time_is_up(script: str) -> None:
    """A command that timed out did not finish, so what it has started ends in any session."""
    output: list[bytes] = []
    argv = ["sh", "-c", f"{script}\nexec sleep 60"]
    began = time.monotonic()
    with trio.move_on_after(0.3) as scope:
        await run_told(argv, env=dict(os.environ), on_output=output.append)
    pids = pids_in(b"".join(output))
    alive = [pid for pid in pids if is_alive(pid)]
    kill(pids)
    assert (scope.cancelled_caught, alive, len(pids)) == (True, [], 1)
    assert time.monotonic() - began < 1


async def test_a_command_does_not_end_with_the_life_that_it_belongs_to() -> None:
    """The life does not end with a command: both carry the life's token, and each has its own."""
    output: list[bytes] = []
    env = dict(os.environ)
    async with open_child(["sleep", "60"], env=env, on_output=print, grace=5, token=OWN) as life:
        of_life = {**env, TOKEN: OWN}
        assert await run_told(["true"], env=of_life, on_output=output.append) is None
        with trio.move_on_after(0.2) as scope:
            await run_told(["sleep", "60"], env=of_life, on_output=output.append)
        assert scope.cancelled_caught
        assert not life.has_ended


async def test_a_process_of_an_earlier_daemon_is_recognised_and_ended() -> None:
    """It is recognised by its pid and start time, and its kin ends with it."""
    with running(LEFT_BOTH, **{TOKEN: OWN}) as (process, pids):
        started = start_of(process.pid) or 0
        with recognised(process.pid, started + 1) as other:
            assert other is None
        with recognised(process.pid, started) as leader:
            assert leader is not None
            assert leader.returncode is None
            child = Child(leader, NO_OUTPUT, 5, Kin(process.pid, started, OWN))
            async with own(child, lambda _: None):
                pass
            assert leader.returncode is not None
            await until_gone(pids, 0.5)


async def test_an_adopted_process_may_be_waited_for_by_several() -> None:
    """All of them learn that it has ended."""
    told: list[int] = []
    with (
        running("true") as (process, _),
        recognised(process.pid, start_of(process.pid) or 0) as leader,
        trio.fail_after(5),
    ):
        assert leader is not None

        async def wait(number: int) -> None:
            await leader.wait()
            told.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(wait, number)
            await trio.sleep(0.05)
            assert told == []
            process.kill()
    assert sorted(told) == [0, 1, 2]


async def test_what_survives_even_being_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in a driver survives SIGKILL; here, the test withholds SIGKILL."""
    monkeypatch.setattr(child_module, "LONGEST_DEATH", 0.2)
    monkeypatch.setattr(child_module, "kill_all", lambda _: None)
    monkeypatch.setattr(child_module, "ESCAPEE_GRACE", 0.05)
    output: list[bytes] = []
    argv, env = ["sh", "-c", f"{DEAF} & wait"], dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=0.1, token=OWN) as child:
        pids = await until_said(output)
    members = await child.kin.members()
    kill(members)
    assert set(pids) <= set(child.left) == set(members)
