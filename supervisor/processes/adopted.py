"""A process that an earlier daemon started: this daemon takes it over or ends it.

Owns how such a process is recognised and waited for. Its exit status is unknown, as it is no child
of this daemon.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from supervisor.processes.census import is_alive, start_of

BETWEEN_LOOKS = 0.05  # seconds


@attrs.define(eq=False)
class AdoptedLeader:
    """The first process of a group that another daemon has started.

    Attributes:
        pid: its process id.
        handle: a pidfd, which stands for this process even if its pid is given to another process.
    """

    pid: int
    handle: int

    @property
    def returncode(self) -> int | None:
        """0 once it has ended; None while it lives."""
        look = select.poll()  # select(2) takes no number above 1023
        look.register(self.handle, select.POLLIN)
        return 0 if look.poll(0) else None

    async def wait(self) -> int | None:
        """Wait for its end; only its parent is told how it ended."""
        while self.returncode is None:
            try:
                await trio.lowlevel.wait_readable(self.handle)
            except trio.BusyResourceError:  # another task waits here, and only that one is woken
                await trio.sleep(BETWEEN_LOOKS)
        return None


class _Gone:
    """A leader that has ended; the processes that it started may live."""

    pid = 0
    returncode = 0

    async def wait(self) -> int | None:
        """Return at once."""
        await trio.lowlevel.checkpoint()
        return None


GONE = _Gone()


@contextmanager
def recognised(pid: int, started: int) -> Iterator[AdoptedLeader | None]:
    """Hold on to a process if it was started at that time; else yield None."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield AdoptedLeader(pid, handle) if started_at(pid, started) else None
    finally:
        os.close(handle)


def started_at(pid: int, started: int) -> bool:
    """Whether a process with this pid and this start time lives."""
    return start_of(pid) == started and is_alive(pid)
