"""One process with everything that it has started, owned by an ``async with`` block.

Owns the way it ends: it is asked to end, given a grace, killed, and watched until nothing of it is
left. This daemon has started it, or an earlier one. `kin` decides which processes belong to it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from supervisor.processes.brood import BROOD
from supervisor.processes.census import COMMAND, TOKEN, start_of
from supervisor.processes.kin import Kin, kill_all, signal_all, signal_group
from supervisor.processes.output import LogFile, Output, Pipe
from supervisor.processes.plainfiles import new_file

HASTE = 3.0  # seconds for a request to stop that must be made even without a grace
ESCAPEE_GRACE = 1.0  # seconds for a pipe to close once every known writer is gone
LONGEST_DEATH = 60.0  # seconds for the kernel to take apart a killed process with its memory
LONGEST_LOOK = 5.0  # seconds for a look at all processes
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05  # seconds between looks for what is left

AskToStop = Callable[[], Awaitable[None]]


class CannotStart(Exception):
    """The program could not be started; the text says why."""


class Leader(Protocol):
    """The first process of a group; its pid is the group's id."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it lives."""

    async def wait(self) -> int | None:
        """Wait for its end; return its exit status, if that can be known."""


@attrs.define(eq=False)
class Child:
    """A running process with its kin.

    Attributes:
        leader: its first process.
        output: what it writes.
        grace: seconds between the request to end and SIGKILL.
        kin: the processes that belong to it.
        ask: asks it to end, within a limit of its own; None sends SIGTERM to all of its processes.
        must_be_asked: whether it is asked even when there is no time for its grace, because nothing
        else ends what it has started.
        was_killed: whether it outlived its grace; a grace that was cut short does not count.
        is_let_go: whether it goes on when its owner ends.
        left: the pids of processes that outlived even SIGKILL, for example by hanging in a driver.
    """

    leader: Leader
    output: Output
    grace: float
    kin: Kin
    ask: AskToStop | None = None
    must_be_asked: bool = False
    was_killed: bool = attrs.field(default=False, init=False)
    is_let_go: bool = attrs.field(default=False, init=False)
    left: tuple[int, ...] = attrs.field(default=(), init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _asked: set[int] = attrs.field(factory=set, init=False)

    @property
    def pid(self) -> int:
        """The process id of the leader."""
        return self.leader.pid

    @property
    def has_ended(self) -> bool:
        """Whether the leader has ended."""
        return self.leader.returncode is not None

    async def exited(self) -> int | None:
        """Wait for the leader; return its exit status, negative for a signal, if that is known."""
        return await self.leader.wait()

    def cut(self) -> None:
        """Cut the grace short, now or when the end begins: SIGKILL follows at once."""
        self._patience.cancel()

    @property
    def can_be_let_go(self) -> bool:
        """Whether it would survive its owner: a pipe would break, a file does not."""
        return isinstance(self.output, LogFile)

    def let_go(self) -> None:
        """Let it live on when its owner ends; its output must be a file."""
        self.is_let_go = True
        BROOD.spared.add(self.kin.token)
        BROOD.outputs.add(self.kin.output)

    def spare_strays(self) -> None:
        """Let processes that left the session live on: a command may leave some behind."""
        self.kin = attrs.evolve(self.kin, token="", seen={})

    async def end(self) -> None:
        """Ask it to end, wait for the grace, kill. Returns when nothing is left; do not cancel."""
        is_asked = False
        with self._patience:
            await self._request_end()
            is_asked = True
            with trio.move_on_after(self.grace) as grace:
                await self._until_gone()
            self.was_killed = grace.cancelled_caught
        if self.must_be_asked and not is_asked:
            with trio.move_on_after(HASTE):
                await self._request_end()
                await self.leader.wait()
        with trio.move_on_after(LONGEST_DEATH) as death:
            await self._kill()
        if death.cancelled_caught:
            self.left = tuple(await self._members())
        with trio.move_on_after(ESCAPEE_GRACE):
            await self.output.drained()

    async def _request_end(self) -> None:
        if self.ask is not None:
            await self.ask()
        else:
            await self.terminate()

    async def terminate(self) -> None:
        """Send SIGTERM to all of its processes, in whatever process groups they are."""
        members = await self._members()  # first, as a process that loses its parent may get lost
        in_group = self._signal_group(members, signal.SIGTERM)
        signal_all(set(members) - in_group, signal.SIGTERM)
        self._asked |= set(members)

    async def _members(self) -> list[int]:
        """Return the pids that live, or those last seen if a process that hangs blocks the look."""
        known = list(self.kin.seen)
        with trio.move_on_after(LONGEST_LOOK):
            return await self.kin.members()
        return known

    def _signal_group(self, members: Iterable[int], number: int) -> set[int]:
        """Signal the leader's group if it still is that; return the members in it."""
        in_group = {pid for pid in members if _group_of(pid) == self.pid}
        if in_group or not self.has_ended:
            signal_group(self.pid, number)
        return in_group

    async def _until_gone(self) -> None:
        """Wait for the leader to end, then ask the rest to end, and wait for that."""
        await self.leader.wait()
        pause = FIRST_PAUSE
        while left := set(await self._members()):
            signal_all(left - self._asked, signal.SIGTERM)
            self._asked |= left
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _kill(self) -> None:
        pause = FIRST_PAUSE
        while True:
            left = await self._members()  # first, as a process that loses its parent may get lost
            self._signal_group(left, signal.SIGKILL)
            kill_all(left)
            if not left and self.has_ended:
                return
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None],
    grace: float,
    log_file: Path | None = None,
    token: str = "",
) -> AsyncIterator[Child]:
    """Start a process in a session of its own; leaving the block ends all of it.

    Args:
        argv: program and arguments; no shell is involved.
        env: its whole environment.
        on_output: called with what it writes to stdout and stderr.
        grace: seconds between SIGTERM and SIGKILL when the block is left.
        log_file: the file that it writes to, so that it can outlive the daemon; None uses a pipe.
        token: marks its descendants; without a token, the process is a command of a life.

    Raises:
        CannotStart: there is no such program, or the system has no resources for it.
    """
    variable, token = (TOKEN, token) if token else (COMMAND, secrets.token_hex(8))
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(new_file(log_file)) if log_file else None
            closing.enter_context(BROOD.start())
            process = await trio.lowlevel.open_process(
                argv,
                env={**env, variable: token},
                stdin=subprocess.DEVNULL,
                stdout=file or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            BROOD.add(process.pid)
        except OSError as error:
            what = f"{error.strerror}: {error.filename!r}" if error.filename else str(error)
            raise CannotStart(what) from error
        # A NUL in an argument, no argument at all, or no thread to start it in.
        except (ValueError, IndexError, RuntimeError) as error:
            raise CannotStart(str(error)) from error
    goes_to = f"{log_file}" if log_file else _pipe_of(process)
    kin = Kin(process.pid, _start_of(process.pid), token, variable, goes_to)
    output: Output = LogFile(log_file) if log_file else Pipe(_stdout_of(process))
    child = Child(process, output, grace, kin)
    BROOD.outputs.add(goes_to)
    try:
        async with own(child, on_output):
            yield child
    finally:
        BROOD.remove(process.pid)
        if not child.is_let_go:
            BROOD.outputs.discard(goes_to)


@asynccontextmanager
async def own(child: Child, on_output: Callable[[bytes], None]) -> AsyncIterator[Child]:
    """Follow a process's output; leaving the block ends all of it, or lets it go."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.output.follow, on_output)
        try:
            yield child
        finally:
            # Shielded: the process must be gone before its owner is. The grace bounds this.
            with trio.CancelScope(shield=True):
                try:
                    if not child.is_let_go:
                        await child.end()
                finally:
                    await child.output.aclose()


def _start_of(pid: int) -> int:
    """Return a process's start time; 0 if that cannot be read."""
    with contextlib.suppress(OSError):
        return start_of(pid) or 0
    return 0


def _pipe_of(process: trio.Process) -> str:
    """Return the kernel's name of the pipe that a process writes to."""
    stdout = process.stdout
    number = stdout.fileno() if isinstance(stdout, trio.lowlevel.FdStream) else None
    return "" if number is None else f"pipe:[{os.fstat(number).st_ino}]"


def _stdout_of(process: trio.Process) -> trio.abc.ReceiveStream:
    if process.stdout is None:  # we always ask for a pipe; this tells the type checker
        raise CannotStart("it has no output")
    return process.stdout
