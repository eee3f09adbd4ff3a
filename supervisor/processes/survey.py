"""One look at the memory of the machine and of all models: who holds what, and what is left.

Owns that everything is read at the same time, by one thread and from one process table. `memory`
measures one model. `room` decides what follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import structlog

from supervisor.processes.census import Table, token_of
from supervisor.processes.kin import Kin
from supervisor.processes.memory import (
    NOTHING_LEFT,
    OF_DRIVER,
    Held,
    belongs_to,
    beside,
    own_of,
    resident_of,
)
from supervisor.room.devices import Look, Reading, look_at_all
from supervisor.room.kernelfiles import number_in, text_in

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

_KILOBYTES = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_NO_LIMIT = 1 << 60  # bytes; the first version of cgroups writes nearly 1 << 63 for no limit


@attrs.frozen(kw_only=True)
class Survey:
    """What was measured of memory at one moment.

    Attributes:
        readings: one for each device.
        held: what each model's processes hold, by the caller's key.
        host_total: bytes of host memory that the daemon's processes may use; None if not known.
        host_free: the part of it that is available without anything giving memory up.
    """

    readings: Sequence[Reading] = ()
    held: Mapping[str, Held] = attrs.field(factory=dict)
    host_total: int | None = None
    host_free: int | None = None


@attrs.frozen
class Host:
    """The kernel's files on host memory.

    Attributes:
        proc: the folder of processes.
        cgroups: the folder of control groups.
    """

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def memory(self) -> tuple[int | None, int | None]:
        """Return the total and the free bytes, by the tightest limit.

        A file cache counts as free: the kernel drops it before it ends a process (proc_meminfo(5),
        and ``inactive_file`` of a control group).
        """
        figures = _kilobytes(self.proc / "meminfo")
        limits = list(self._limits())
        totals = [figures.get("MemTotal"), *(limit for limit, _ in limits)]
        free = [figures.get("MemAvailable"), *(left for _, left in limits)]
        return _least(totals), _least(free)

    def _limits(self) -> Iterator[tuple[int, int]]:
        """Yield the limit of each control group that the daemon is in, and what that leaves."""
        for line in text_in(self.proc / "self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from map(_second, _upwards(self.cgroups, path))
            elif "memory" in controllers.split(","):
                yield from map(_first, _upwards(self.cgroups / "memory", path))


async def survey(roots: Mapping[str, int]) -> Survey:
    """Measure all memory at once. A driver may hang, and then so does this: bound it.

    Args:
        roots: the first process of each model's server, by any key.

    Returns:
        What can be read; the rest is None, or is left out.
    """
    try:
        return await beside(_take, dict(roots), OF_DRIVER)
    except NOTHING_LEFT:  # no thread, for example: two files can be read without one
        return _of_host()
    except Exception:  # a driver's library may raise anything: then nothing was measured
        log.exception("Internal error while measuring memory; llamadoze goes on without a reading")
        return Survey()


def _take(roots: Mapping[str, int]) -> Survey:
    table = _table()
    trees = {key: _tree(pid, table) for key, pid in roots.items()}
    seen = look_at_all(table.entries)
    held = {key: _held(roots[key], tree, seen, table) for key, tree in trees.items()}
    return attrs.evolve(_of_host(), readings=seen.readings, held=held)


def _of_host() -> Survey:
    total, free = Host().memory()
    return Survey(host_total=total, host_free=free)


def _table() -> Table:
    try:
        return Table.now()
    except OSError:  # no file descriptor is left to look with
        return Table({}, {}, {})


def _tree(pid: int, table: Table) -> set[int]:
    leader = table.entries.get(pid)
    if leader is None:
        return {pid}
    return {pid, *Kin(pid, leader.started, token_of(pid)).among(table)}


def _held(leader: int, tree: set[int], seen: Look, table: Table) -> Held:
    """Return what a tree holds; processes newer than the table are checked one by one."""
    young = (pid for pid in seen.pids if pid not in table.entries)
    ours = {*tree, *(pid for pid in young if pid not in tree and belongs_to(leader, pid))}
    sizes = _sum(resident_of, tree), seen.held_by(ours), seen.by_device(ours)
    return Held(*sizes, _sum(own_of, tree))


def _sum(size_of: Callable[[int], int], tree: set[int]) -> int | None:
    try:
        return sum(map(size_of, tree))
    except OSError:  # no file descriptor is left to look with
        return None


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield a control group's folder and those above it; in a container some are missing."""
    folder = root / path.lstrip("/")
    yield folder
    yield from (above for above in folder.parents if above.is_relative_to(root))


def _second(group: Path) -> tuple[int, int]:
    return _limit(group, "memory.max", "memory.current", "inactive_file")


def _first(group: Path) -> tuple[int, int]:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return _limit(group, *names)


def _limit(group: Path, most: str, current: str, idle: str) -> tuple[int, int]:
    """Return a group's limit and what it leaves; a huge number for either if there is no limit."""
    limit = number_in(group / most)
    if limit is None or limit >= _NO_LIMIT:
        return _NO_LIMIT, _NO_LIMIT
    pairs = (line.partition(" ") for line in text_in(group / "memory.stat").splitlines())
    cached = next((int(value) for name, _, value in pairs if name == idle), 0)
    return limit, max(0, limit - (number_in(group / current) or 0) + cached)


def _least(figures: Sequence[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None and figure < _NO_LIMIT]
    return min(known, default=None)


def _kilobytes(file: Path) -> dict[str, int]:
    return {name: int(value) * 1024 for name, value in _KILOBYTES.findall(text_in(file))}
