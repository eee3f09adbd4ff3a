"""How much host memory a model server holds, with everything it has started.

Owns the measuring. What follows from too much of it is the budget's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psutil
import trio

Measure = Callable[[int], Awaitable[int]]
"""Return the bytes that the process tree of a pid holds."""


async def held_by(pid: int) -> int:
    """Return the bytes of host memory, swap included, that a process and its descendants hold.

    Pages that several processes share are counted in parts (PSS), so that nothing counts twice.
    """
    try:
        # Walking the pages of a large process takes the kernel a tenth of a second.
        return await trio.to_thread.run_sync(_measure, pid, abandon_on_cancel=True)
    except RuntimeError:  # there is no thread left; the next look has one
        return 0


def _measure(pid: int) -> int:
    try:
        leader = psutil.Process(pid)
        tree = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_bytes_of, tree))


def _bytes_of(process: psutil.Process) -> int:
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
