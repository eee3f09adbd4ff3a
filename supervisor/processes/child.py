"""One process with all its descendants, owned by an ``async with`` block.

Owns the process group and the way it ends: asked, given a grace, killed. It was started here, or by
an earlier daemon. A descendant that left the session and holds the pipe is waited for a second
longer and then let go.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs
import trio

from supervisor.processes.groups import signal_group
from supervisor.processes.output import LogFile, Output, Pipe

ESCAPEE_GRACE = 1.0  # seconds for a pipe to close after its group was killed
LONGEST_DEATH = 60.0  # seconds for the kernel to take apart what was killed, memory and all

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
        """How it ended; None while it lives."""

    async def wait(self) -> int | None:
        """Wait for its end; return how it ended, if that can be known."""


@attrs.define(eq=False)
class Child:
    """A running process group.

    Attributes:
        leader: its first process.
        output: what it writes.
        grace: seconds between being asked to end and SIGKILL.
        ask: how it is asked to end; None sends SIGTERM to the group.
        was_killed: whether its grace passed without its end; a grace given up does not count.
        is_let_go: whether it goes on when its owner ends.
        is_stuck: whether it has outlived even SIGKILL, as what hangs in a driver does.
    """

    leader: Leader
    output: Output
    grace: float
    ask: AskToStop | None = None
    was_killed: bool = attrs.field(default=False, init=False)
    is_let_go: bool = attrs.field(default=False, init=False)
    is_stuck: bool = attrs.field(default=False, init=False)
    _grace_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def pid(self) -> int:
        """The process id of the leader."""
        return self.leader.pid

    async def exited(self) -> int | None:
        """Wait for the leader; return its exit status, negative for a signal, if it is known."""
        return await self.leader.wait()

    def cut(self) -> None:
        """Give up the grace, now or when the end comes: SIGKILL follows at once."""
        self._grace_scope.cancel()

    @property
    def can_be_let_go(self) -> bool:
        """Whether it would survive its owner: a pipe would break under it."""
        return isinstance(self.output, LogFile)

    def let_go(self) -> None:
        """Let it live on when its owner ends; its output must be a file."""
        self.is_let_go = True

    async def end(self) -> None:
        """Ask, wait for the grace, kill. Returns when the group is gone; do not cancel."""
        try:
            with self._grace_scope:
                self._grace_scope.deadline = trio.current_time() + self.grace
                await self._request_end()
                await self.leader.wait()
                await self.output.ended(self.pid)
        finally:
            self._signal(signal.SIGKILL)
        cut_off = self._grace_scope.cancelled_caught
        self.was_killed = cut_off and trio.current_time() >= self._grace_scope.deadline
        with trio.move_on_after(LONGEST_DEATH) as death:
            await self.leader.wait()
        self.is_stuck = death.cancelled_caught
        with trio.move_on_after(ESCAPEE_GRACE):
            await self.output.drained(self.pid)

    async def _request_end(self) -> None:
        if self.ask is not None and self.leader.returncode is None:
            await self.ask()
        else:
            self.terminate()

    def terminate(self) -> None:
        """Send SIGTERM to all of it."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        signal_group(self.pid, number)


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None],
    grace: float,
    log_file: Path | None = None,
) -> AsyncIterator[Child]:
    """Start a process in a session of its own; leaving the block ends all of it.

    Args:
        argv: program and arguments; no shell is involved.
        env: its whole environment.
        on_output: called with what it writes to stdout and stderr.
        grace: seconds between SIGTERM and SIGKILL when the block is left.
        log_file: what it writes to, so that it can outlive the daemon; None is a pipe.

    Raises:
        CannotStart: there is no such program, or the system has no room for it.
    """
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(_new_file(log_file)) if log_file else None
            process = await trio.lowlevel.open_process(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            what = f"{error.strerror}: {error.filename!r}" if error.filename else str(error)
            raise CannotStart(what) from error
        # A NUL in an argument; no argument at all; no thread to start it in.
        except (ValueError, IndexError, RuntimeError) as error:
            raise CannotStart(str(error)) from error
    output: Output = LogFile(log_file) if log_file else Pipe(_stdout_of(process))
    async with own(Child(process, output, grace), on_output) as child:
        yield child


@asynccontextmanager
async def own(child: Child, on_output: Callable[[bytes], None]) -> AsyncIterator[Child]:
    """Follow a process's output; leaving the block ends all of it, or lets it go."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.output.follow, on_output)
        try:
            yield child
        finally:
            # Shielded: a process group must be gone before its owner is. Bounded by the grace.
            with trio.CancelScope(shield=True):
                if not child.is_let_go:
                    await child.end()
                await child.output.aclose()


def _new_file(path: Path) -> BinaryIO:
    """Open an empty file to append to, which only its owner may read: it may hold what was said."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "ab")


def _stdout_of(process: trio.Process) -> trio.abc.ReceiveStream:
    if process.stdout is None:  # we always ask for a pipe; this tells the type checker
        raise CannotStart("it has no output")
    return process.stdout
