"""A process that an earlier daemon has started: to be owned again, or to be ended.

Owns how such a process is recognised and waited for. Its exit status is not known: it is no child
of ours.
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
        handle: a pidfd, which stands for this process even when its pid is given to another.
    """

    pid: int
    handle: int

    @property
    def returncode(self) -> int | None:
        """Something once it has ended; None while it lives."""
        look = select.poll()  # select(2) takes no number above 1023
        look.register(self.handle, select.POLLIN)
        return 0 if look.poll(0) else None

    async def wait(self) -> int | None:
        """Wait for its end; how it ended only its parent is told."""
        while self.returncode is None:
            try:
                await trio.lowlevel.wait_readable(self.handle)
            except trio.BusyResourceError:  # somebody else waits here, and they are told alone
                await trio.sleep(BETWEEN_LOOKS)
        return None


class _Gone:
    """A leader that has ended; what it has started may live."""

    pid = 0
    returncode = 0

    async def wait(self) -> int | None:
        """Return at once."""
        await trio.lowlevel.checkpoint()
        return None


GONE = _Gone()


@contextmanager
def recognised(pid: int, started: int) -> Iterator[AdoptedLeader | None]:
    """Hold on to a process if it is the one that was started then; else there is None."""
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
    """Whether a process lives that was started then."""
    return start_of(pid) == started and is_alive(pid)
