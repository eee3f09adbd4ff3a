"""How much memory a model server holds, with everything it has started: of the host, of the GPUs.

Owns the measuring. What follows from too much of it is decided in `sleepbudget` and `proof`.
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

if TYPE_CHECKING:  # 5 ms and 1 MiB of a daemon that may never measure: imported where it is used
    import psutil

S = TypeVar("S")
T = TypeVar("T")
Measure = Callable[[int], Awaitable[int]]
"""Return the bytes that the process tree of a pid holds."""


@attrs.frozen(eq=False)
class Threads:
    """Threads of one kind of look; what one run of Trio has given up keeps none of the next.

    Attributes:
        most: how many there are at a time.
    """

    most: int
    _of_a_run: trio.lowlevel.RunVar[trio.CapacityLimiter] = attrs.field(
        factory=lambda: trio.lowlevel.RunVar("threads"), init=False
    )

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """What counts them in the present run."""
        try:
            return self._of_a_run.get()
        except LookupError:
            self._of_a_run.set(trio.CapacityLimiter(self.most))
            return self._of_a_run.get()


# What hangs keeps its thread: a driver must keep neither those of the daemon nor those for /proc.
OF_DRIVER, _OF_PROC = Threads(2), Threads(4)
# There is no thread left to look with, or no descriptor: for a file, or for the library itself.
NOTHING_LEFT = (RuntimeError, OSError, ImportError)
_OWN = re.compile(rb"^(?:RssAnon|RssShmem):\s+(\d+) kB$", re.MULTILINE)
_RESIDENT = re.compile(rb"^(?:VmRSS|VmSwap):\s+(\d+) kB$", re.MULTILINE)


@attrs.frozen
class Held:
    """Bytes that a process tree holds.

    Attributes:
        host: of host memory, swap included; pages that are shared count for each process. None
            where that cannot be seen.
        gpu: the same of GPU memory.
        by_gpu: those of it on each GPU, by the name of the `Device`, as far as that is told.
        own: of host memory what the kernel cannot drop: no files that are mapped, no swap. None
            where that was not looked at.
    """

    host: int | None = None
    gpu: int | None = None
    by_gpu: Mapping[str, int] = attrs.field(factory=dict)
    own: int | None = None


async def held_by(pid: int) -> int:
    """Return the bytes of host memory, swap included, that a process and its descendants hold.

    Pages that several processes share are counted in parts (PSS), so that nothing counts twice.
    """
    try:
        # Walking the pages of a large process takes the kernel a tenth of a second.
        return await beside(_measure, pid)
    except NOTHING_LEFT:  # the next look has it
        return 0


async def weigh(pid: int, host: bool) -> Held:
    """Return what a process and its descendants hold, as the kernel and the driver count it."""
    try:
        gpu, by_gpu = await beside(_weigh_gpus, pid, OF_DRIVER)
        return Held(await beside(_weigh_host, pid) if host else None, gpu, by_gpu)
    except NOTHING_LEFT:
        return Held()


async def beside(look: Callable[[S], T], at: S, threads: Threads = _OF_PROC) -> T:
    """Look at a process, or at many, in a thread, which is given up if it takes too long."""
    limiter = threads.limiter
    return await trio.to_thread.run_sync(look, at, abandon_on_cancel=True, limiter=limiter)


async def processes_below(pid: int) -> list[int]:
    """Return a process and all it has started; it alone where nobody can look."""
    try:
        return await beside(tree_of, pid)
    except NOTHING_LEFT:
        return [pid]


def tree_of(pid: int) -> list[int]:
    """Return a process and all it has started, as far as it still belongs to its life."""
    leader = entry_of(pid)
    if leader is None:
        return [pid]
    members = Kin(pid, leader.started, token_of(pid)).among(Table.now())
    return list(dict.fromkeys([pid, *members]))


def _weigh_host(pid: int) -> int:
    return sum(map(resident_of, tree_of(pid)))


def _weigh_gpus(pid: int) -> tuple[int | None, dict[str, int]]:
    """Look at those that hold GPU memory alone: they are few, and processes may be thousands."""
    seen = look_at_all(_each_of_tree(pid))
    ours = [one for one in seen.pids if belongs_to(pid, one)]
    return seen.held_by(ours), seen.by_device(ours)


def _each_of_tree(pid: int) -> Iterator[int]:
    """Yield the processes of a tree, which is looked for when the first of them is wanted."""
    yield from tree_of(pid)


def belongs_to(leader: int, pid: int) -> bool:
    """Whether a process carries a leader's token, is in its session, or descends from it."""
    token = token_of(leader)
    if token and token_of(pid) == token:
        return True
    try:
        return os.getsid(pid) == leader or leader in _line_of(pid)
    except OSError:  # it has just ended
        return False


def _line_of(pid: int) -> list[int]:
    """Return a process, its parent, and so on; nothing if it has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        return [one.pid for one in (process, *process.parents())]
    except psutil.Error:
        return []


def own_of(pid: int) -> int:
    """Return resident bytes of no mapped file (proc_pid_status(5)); 0 for one that has ended."""
    return _told(pid, _OWN)


def resident_of(pid: int) -> int:
    """Return resident and swapped bytes (proc_pid_status(5)); 0 for one that has ended."""
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
        except (psutil.Error, AttributeError):  # of another user; or the kernel does not tell
            continue
    return 0


def _proportional(process: psutil.Process) -> int:
    facts = process.memory_full_info()
    return int(facts.pss + facts.swap)


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
