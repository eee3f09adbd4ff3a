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
import trio

from supervisor.processes.groups import BETWEEN_LOOKS, group_lives, is_dead, members_of

STARTTIME = 19  # its place behind the name of the program


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
        return 0 if ended else None

    async def wait(self) -> int | None:
        """Wait for its end; how it ended only its parent is told."""
        while self.returncode is None:
            try:
                await trio.lowlevel.wait_readable(self.handle)
            except trio.BusyResourceError:  # somebody else waits here, and they are told alone
                await trio.sleep(BETWEEN_LOOKS)
        return None


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
    return start_of(pid) == started and not is_dead(pid)


def is_left_over(pid: int, started: int) -> bool:
    """Whether a process group lives whose leader was started then, even if that has ended.

    Without its leader it is known by its session, which has the leader's pid for its name, and by
    the age of its members: another group with this number would be a job of another session.
    """
    start = start_of(pid)
    if start is not None:
        return start == started and group_lives(pid)
    return any(_is_of(member, pid, started) for member in members_of(pid))


def _is_of(member: int, session: int, started: int) -> bool:
    try:
        return os.getsid(member) == session and (start_of(member) or 0) >= started
    except OSError:
        return False
