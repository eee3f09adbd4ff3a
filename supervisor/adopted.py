"""A process that an earlier daemon has started: to be owned again, or to be ended.

Owns how such a process is recognised and waited for. Its exit status is not known: it is no child
of ours.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil
import trio

from supervisor.groups import group_lives

STARTTIME = 19  # its place behind the name of the program
UNKNOWN_STATUS = 0


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
        ended, _, _ = select.select([self.handle], [], [], 0)
        return UNKNOWN_STATUS if ended else None

    async def wait(self) -> int:
        """Wait for its end."""
        await trio.lowlevel.wait_readable(self.handle)
        return UNKNOWN_STATUS


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


def start_of(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since the boot; None if there is none.

    The kernel's own number (proc_pid_stat(5), field 22): no change of the clock touches it.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[STARTTIME])


def started_at(pid: int, started: int) -> bool:
    """Whether a process lives that was started then."""
    return start_of(pid) == started and not _is_dead(pid)


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def is_left_over(pid: int, started: int) -> bool:
    """Whether a process group lives whose leader was started then, even if that has ended.

    A pid is not given to another process while a group has it for its name.
    """
    return start_of(pid) in (None, started) and group_lives(pid)
