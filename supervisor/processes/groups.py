"""Process groups: a leader with all it has started, that did not leave for a session of its own.

Owns signals to a group, and whether one lives, whoever has started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import psutil
import trio

BETWEEN_LOOKS = 0.05  # seconds; nothing tells of the end of a group


async def until_gone(pid: int) -> None:
    """Wait until nothing of a group lives."""
    while group_lives(pid):  # noqa: ASYNC110 -- the kernel has no event for it
        await trio.sleep(BETWEEN_LOOKS)


async def end_group(pid: int, grace: float, ask: Callable[[], Awaitable[object]] | None) -> bool:
    """End a process group that is not ours: asked, given a grace, killed; return whether killed.

    Args:
        pid: of its leader.
        grace: seconds between being asked and SIGKILL.
        ask: how it is asked to end; None sends SIGTERM.
    """
    with trio.move_on_after(grace) as scope:
        if ask is None:
            signal_group(pid, signal.SIGTERM)
        else:
            await ask()
        await until_gone(pid)
    signal_group(pid, signal.SIGKILL)
    with trio.move_on_after(1):
        await until_gone(pid)
    return scope.cancelled_caught


def group_lives(pid: int) -> bool:
    """Whether a process group has a member that is more than an entry its parent will collect."""
    return signal_group(pid, 0) and any(not is_dead(member) for member in members_of(pid))


def members_of(group: int) -> Iterator[int]:
    """Yield the pids of a process group."""
    return _those(os.getpgid, group)


def session_of(leader: int) -> Iterator[int]:
    """Yield the pids of a session, which may have several groups."""
    return _those(os.getsid, leader)


def _those(belongs_to: Callable[[int], int], number: int) -> Iterator[int]:
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has just ended
            if belongs_to(pid) == number:
                yield pid


def is_dead(pid: int) -> bool:
    """Whether a process is no more than an entry, or not even that."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; return whether there still is one."""
    with contextlib.suppress(PermissionError):  # of a setuid program, which is alive
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
    return True
