"""The children of this process: those it has started, and those that are handed to it as orphans.

Owns the count of both, and that orphans come here and are reaped. Which life an orphan belongs to
is `kin`'s to say.
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
        started: those that it has started itself, by pid, until they have ended.
        starting: how many are being started now, whose pids nobody knows yet.
        spared: tokens of what was let go, and is not to be ended.
        outputs: what lives write to, as the kernel names it, of those let go, too.
        gathers: whether orphans among its descendants are handed to it.
        before: children that it had before it was the daemon, as a shell's ``exec`` leaves them,
            with all that had descended from them.
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
        """Return the children that this process has not started, as far as that is settled."""
        if not self.gathers:
            return []
        ours = self.started | self.before
        return [pid for pid in children_of(os.getpid()) if pid not in ours]

    def gather(self) -> None:
        """Let orphans among the descendants come here, and not to PID 1 (Linux 3.4)."""
        self.before = frozenset(below(children_of(os.getpid())))
        with contextlib.suppress(OSError, AttributeError):
            done = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            self.gathers = done == 0 and has_lists_of_children()

    async def reap(self) -> None:
        """Take note of the end of orphans, for as long as the daemon runs: nobody else does."""
        with trio.open_signal_receiver(signal.SIGCHLD) as ends:
            self.reap_orphans()
            async for _ in ends:
                # What is being started may end before its pid is known: its status is its owner's.
                while not self.is_settled:  # noqa: ASYNC110 -- a matter of milliseconds
                    await trio.sleep(0.01)
                self.reap_orphans()

    def reap_orphans(self) -> None:
        """Let the kernel forget orphans that have ended."""
        if not self.is_settled:
            return
        with contextlib.suppress(OSError):  # there is no descriptor left to look with
            # A number of before may be that of a child of ours by now.
            for pid in [*self.orphans(), *(self.before - self.started)]:
                with contextlib.suppress(ChildProcessError):
                    ended, _ = os.waitpid(pid, os.WNOHANG)
                    self.before -= {ended}


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children; nothing if it has ended (proc_pid_task(5)).

    Raises:
        OSError: there is no descriptor left to look with.
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
    """Do what is in the block as far as it is there; that nobody can look is no answer."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_DESCRIPTORS:
            raise


def below(pids: list[int]) -> list[int]:
    """Return processes and all that descend from them."""
    found = dict.fromkeys(pids)
    for pid in pids:
        for child in children_of(pid):
            if child not in found:
                found.update(dict.fromkeys(below([child])))
    return list(found)


@cache
def has_lists_of_children() -> bool:
    """Whether this kernel tells a process's children (CONFIG_PROC_CHILDREN)."""
    return (TASKS / str(os.getpid()) / "children").exists()


def _all_of(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


BROOD = Brood()
"""Of this process there is one: who waits for any child takes the status of all."""
