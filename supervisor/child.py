"""One child process with all its descendants, owned by an ``async with`` block.

Owns the process group, its output pipe, and the way it ends: asked, given a grace, killed. The
pipe's end is the join on the descendants; a descendant that left the session and holds the pipe
is waited for a second longer and then let go.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

ESCAPEE_GRACE = 1.0  # seconds for a pipe to close after its group was killed

AskToStop = Callable[[], Awaitable[None]]


class CannotStart(Exception):
    """The program could not be started; the text says why."""


@attrs.define(eq=False)
class Child:
    """A running process group.

    Attributes:
        process: its leader, whose pid is the group's id.
        grace: seconds between being asked to end and SIGKILL.
        ask: how it is asked to end; None sends SIGTERM to the group.
        was_killed: whether its grace passed without its end; a grace given up does not count.
    """

    process: trio.Process
    grace: float
    ask: AskToStop | None = None
    was_killed: bool = attrs.field(default=False, init=False)
    _grace_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def pid(self) -> int:
        """The process id of the leader."""
        return self.process.pid

    async def exited(self) -> int:
        """Wait for the leader; return its exit status, negative for a signal."""
        return await self.process.wait()

    def cut(self) -> None:
        """Give up the grace, now or when the end comes: SIGKILL follows at once."""
        self._grace_scope.cancel()

    async def pump(self, on_output: Callable[[bytes], None]) -> None:
        """Read the output to its end, which comes when the last descendant has closed it."""
        if self.process.stdout is None:  # we always ask for a pipe; this tells the type checker
            return
        # Shielded: the reader must outlive a cancelled owner, or the group could not say goodbye.
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            async for chunk in self.process.stdout:
                on_output(bytes(chunk))
        self._drained.set()

    async def end(self) -> None:
        """Ask, wait for the grace, kill. Returns when the group is gone; do not cancel."""
        try:
            with self._grace_scope:
                self._grace_scope.deadline = trio.current_time() + self.grace
                await self._request_end()
                await self.process.wait()
                if self._signal(0):  # else only an escapee holds the pipe, and has no grace
                    await self._drained.wait()
        finally:
            self._signal(signal.SIGKILL)
        cut_off = self._grace_scope.cancelled_caught
        self.was_killed = cut_off and trio.current_time() >= self._grace_scope.deadline
        await self.process.wait()
        with trio.move_on_after(ESCAPEE_GRACE):
            await self._drained.wait()
        if self.process.stdout is not None:
            await self.process.stdout.aclose()

    async def _request_end(self) -> None:
        if self.ask is not None and self.process.returncode is None:
            await self.ask()
        else:
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; return whether there still is one."""
        with contextlib.suppress(PermissionError):  # of a setuid program, which is alive
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return False
        return True


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None],
    grace: float,
) -> AsyncIterator[Child]:
    """Start a process in a session of its own; leaving the block ends all of it.

    Args:
        argv: program and arguments; no shell is involved.
        env: its whole environment.
        on_output: called with what it writes to stdout and stderr.
        grace: seconds between SIGTERM and SIGKILL when the block is left.

    Raises:
        CannotStart: there is no such program, or the system has no room for it.
    """
    try:
        process = await trio.lowlevel.open_process(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        what = f"{error.strerror}: {error.filename!r}" if error.filename else str(error)
        raise CannotStart(what) from error
    except (ValueError, RuntimeError) as error:  # a NUL in an argument; no thread to start it in
        raise CannotStart(str(error)) from error
    child = Child(process, grace)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.pump, on_output)
        try:
            yield child
        finally:
            # Shielded: a process group must be gone before its owner is. Bounded by the grace.
            with trio.CancelScope(shield=True):
                await child.end()
