"""The children of this process: those it has started, and orphans that the kernel hands to it.

Owns the list of both, and the collecting of orphans. `kin` decides which life an orphan belongs to.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import attrs
import trio

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
TASKS = Path("/proc/self/task")


@attrs.define(eq=False)
class Brood:
    """The children of this process.

    Attributes:
        started: the children that it has started itself, by pid, until they have ended.
        starting: how many children are being started now, whose pids are not known yet.
        spared: tokens of processes that were let go and must not be ended.
        outputs: the pipes and files that lives write to, as the kernel names them; includes the
        lives that were let go.
        gathers: whether orphans among its descendants are handed to it.
        before: children that it had before it was the daemon, as a shell's ``exec`` leaves them,
        with all their descendants at that time.
    """

    started: set[int] = attrs.field(factory=set, init=False)
    starting: int = attrs.field(default=0, init=False)
    spared: set[str] = attrs.field(factory=set, init=False)
    outputs: set[str] = attrs.field(factory=set, init=False)
    gathers: bool = attrs.field(default=False, init=False)
    before: frozenset[int] = attrs.field(default=frozenset(), init=False)

    @contextmanager
    def start(self) -> Iterator[None]:
        """Start a child in this block, and `add` it before the block ends."""
        self.starting += 1
        try:
            yield
        finally:
            self.starting -= 1

    def add(self, pid: int) -> None:
        """Note a child that was started here."""
        self.started.add(pid)

    def remove(self, pid: int) -> None:
        """Forget a child that has ended and was reaped."""
        self.started.discard(pid)

    @property
    def is_settled(self) -> bool:
        """Whether every child that is not in `started` is an orphan that was handed over."""
        return not self.starting

    def orphans(self) -> list[int]:
        """Return the children that this process has not started, as far as that is known."""
        if not self.gathers:
            return []
        ours = self.started | self.before
        return [pid for pid in children_of(os.getpid()) if pid not in ours]

    def gather(self) -> None:
        """Make orphaned descendants come to this process and not to PID 1 (Linux 3.4)."""
        self.before = frozenset(below(children_of(os.getpid())))
        with contextlib.suppress(OSError, AttributeError):
            done = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            self.gathers = done == 0 and has_lists_of_children()

    async def reap(self) -> None:
        """Reap orphans that have ended, for as long as the daemon runs: no other task does."""
        with trio.open_signal_receiver(signal.SIGCHLD) as ends:
            self.reap_orphans()
            async for _ in ends:
                # A new child may end before its pid is known. Its status belongs to its owner.
                while not self.is_settled:  # noqa: ASYNC110 -- a matter of milliseconds
                    await trio.sleep(0.01)
                self.reap_orphans()

    def reap_orphans(self) -> None:
        """Reap orphans that have ended."""
        if not self.is_settled:
            return
        with contextlib.suppress(OSError):  # no file descriptor is left to look with
            # A pid in `before` may by now be the pid of a child of ours.
            for pid in [*self.orphans(), *(self.before - self.started)]:
                with contextlib.suppress(ChildProcessError):
                    ended, _ = os.waitpid(pid, os.WNOHANG)
                    self.before -= {ended}


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children; empty if it has ended (proc_pid_task(5)).

    Raises:
        OSError: no file descriptor is left to look with.
    """
    found: list[int] = []
    tasks = f"/proc/{pid}/task"
    with if_there():
        for task in os.listdir(tasks):  # noqa: PTH208 -- as in `census`: of hundreds of threads
            with if_there():  # the thread has just ended
                descriptor = os.open(f"{tasks}/{task}/children", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    found += map(int, _all_of(descriptor).split())
                finally:
                    os.close(descriptor)
    return found


@contextmanager
def if_there() -> Iterator[None]:
    """Ignore that a file or process is gone; a lack of file descriptors is still raised."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_DESCRIPTORS:
            raise


def below(pids: list[int]) -> list[int]:
    """Return these processes and all their descendants."""
    found = dict.fromkeys(pids)
    for pid in pids:
        for child in children_of(pid):
            if child not in found:
                found.update(dict.fromkeys(below([child])))
    return list(found)


@cache
def has_lists_of_children() -> bool:
    """Whether this kernel lists a process's children (CONFIG_PROC_CHILDREN)."""
    return (TASKS / str(os.getpid()) / "children").exists()


def _all_of(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


BROOD = Brood()
"""There is one for this process: a wait for any child takes the exit status of all."""
