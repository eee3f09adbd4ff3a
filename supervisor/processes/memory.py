"""How much memory a model server holds with everything it has started: host memory, GPU memory.

Owns the measuring. `sleepbudget` and `proof` decide what follows from too much memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from supervisor.processes.census import Table, entry_of, token_of
from supervisor.processes.kin import Kin
from supervisor.room.devices import look_at_all

if TYPE_CHECKING:  # costs 5 ms and 1 MiB, and may never be needed: imported where it is used
    import psutil

S = TypeVar("S")
T = TypeVar("T")
Measure = Callable[[int], Awaitable[int]]
"""Returns the bytes that the process tree of a pid holds."""


@attrs.frozen(eq=False)
class Threads:
    """Threads for one kind of look; threads abandoned by one Trio run take none from the next.

    Attributes:
        most: how many threads there are at a time.
    """

    most: int
    _of_a_run: trio.lowlevel.RunVar[trio.CapacityLimiter] = attrs.field(
        factory=lambda: trio.lowlevel.RunVar("threads"), init=False
    )

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """The limiter of the present Trio run."""
        try:
            return self._of_a_run.get()
        except LookupError:
            self._of_a_run.set(trio.CapacityLimiter(self.most))
            return self._of_a_run.get()


# A look that hangs keeps its thread. A driver must not take the daemon's threads or those for
# /proc.
OF_DRIVER, _OF_PROC = Threads(2), Threads(4)
# No thread is left to look with, or no file descriptor for a file or for the library itself.
NOTHING_LEFT = (RuntimeError, OSError, ImportError)
_OWN = re.compile(rb"^(?:RssAnon|RssShmem):\s+(\d+) kB$", re.MULTILINE)
_RESIDENT = re.compile(rb"^(?:VmRSS|VmSwap):\s+(\d+) kB$", re.MULTILINE)


@attrs.frozen
class Held:
    """Bytes that a process tree holds.

    Attributes:
        host: host memory, swap included; shared pages count for each process. None if that cannot
        be read.
        gpu: GPU memory. None if that cannot be read.
        by_gpu: the part of it on each GPU, by the name of the `Device`, as far as that is told.
        own: host memory that the kernel cannot drop: no mapped files, no swap. None if that was not
        measured.
    """

    host: int | None = None
    gpu: int | None = None
    by_gpu: Mapping[str, int] = attrs.field(factory=dict)
    own: int | None = None


async def held_by(pid: int) -> int:
    """Return the bytes of host memory, swap included, that a process and its descendants hold.

    Pages that several processes share are divided among them (PSS), so that nothing counts twice.
    """
    try:
        # Walking the pages of a large process takes the kernel a tenth of a second.
        return await beside(_measure, pid)
    except NOTHING_LEFT:  # the next look will have the number
        return 0


async def weigh(pid: int, host: bool) -> Held:
    """Return what a process and its descendants hold, as the kernel and the driver count it."""
    try:
        gpu, by_gpu = await beside(_weigh_gpus, pid, OF_DRIVER)
        return Held(await beside(_weigh_host, pid) if host else None, gpu, by_gpu)
    except NOTHING_LEFT:
        return Held()


async def beside(look: Callable[[S], T], at: S, threads: Threads = _OF_PROC) -> T:
    """Look at one or more processes in a thread, which is abandoned if it takes too long."""
    limiter = threads.limiter
    return await trio.to_thread.run_sync(look, at, abandon_on_cancel=True, limiter=limiter)


async def processes_below(pid: int) -> list[int]:
    """Return a process and all it has started; only the process if that cannot be read."""
    try:
        return await beside(tree_of, pid)
    except NOTHING_LEFT:
        return [pid]


def tree_of(pid: int) -> list[int]:
    """Return a process and all it has started, as far as these still belong to its life."""
    leader = entry_of(pid)
    if leader is None:
        return [pid]
    members = Kin(pid, leader.started, token_of(pid)).among(Table.now())
    return list(dict.fromkeys([pid, *members]))


def _weigh_host(pid: int) -> int:
    return sum(map(resident_of, tree_of(pid)))


def _weigh_gpus(pid: int) -> tuple[int | None, dict[str, int]]:
    """Look only at processes that hold GPU memory: these are few, and a tree may have thousands."""
    seen = look_at_all(_each_of_tree(pid))
    ours = [one for one in seen.pids if belongs_to(pid, one)]
    return seen.held_by(ours), seen.by_device(ours)


def _each_of_tree(pid: int) -> Iterator[int]:
    """Yield the processes of a tree, which is read only when the first of them is wanted."""
    yield from tree_of(pid)


def belongs_to(leader: int, pid: int) -> bool:
    """Whether a process carries a leader's token, is in its session, or descends from it."""
    token = token_of(leader)
    if token and token_of(pid) == token:
        return True
    try:
        return os.getsid(pid) == leader or leader in _line_of(pid)
    except OSError:  # the process has just ended
        return False


def _line_of(pid: int) -> list[int]:
    """Return a process, its parent, and so on; empty if it has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        return [one.pid for one in (process, *process.parents())]
    except psutil.Error:
        return []


def own_of(pid: int) -> int:
    """Return resident bytes outside mapped files (proc_pid_status(5)); 0 if it has ended."""
    return _told(pid, _OWN)


def resident_of(pid: int) -> int:
    """Return resident and swapped bytes (proc_pid_status(5)); 0 if it has ended."""
    return _told(pid, _RESIDENT)


def _told(pid: int, lines: re.Pattern[bytes]) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(kilobytes) for kilobytes in lines.findall(text)) * 1024


def _measure(pid: int) -> int:
    import psutil

    try:
        leader = psutil.Process(pid)
        tree = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_bytes_of, tree))


def _bytes_of(process: psutil.Process) -> int:
    import psutil

    for measured in (_proportional, _resident):
        try:
            return measured(process)
        except psutil.NoSuchProcess:
            return 0
        except (psutil.Error, AttributeError):  # another user's, or the kernel does not tell
            continue
    return 0


def _proportional(process: psutil.Process) -> int:
    facts = process.memory_full_info()
    return int(facts.pss + facts.swap)


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
