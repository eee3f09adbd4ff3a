"""The process table: which processes live, their parents, their tokens and their outputs.

Owns the reading of /proc; callers at the same time share one look. `kin` decides which processes
belong together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs
import trio

from supervisor.processes.brood import BROOD, if_there

TOKEN = "LLAMADOZE_LIFE"  # noqa: S105 -- the name of a variable, not a secret
COMMAND = "LLAMADOZE_COMMAND"
_BEGINNING = b"LLAMADOZE_"
LONGEST_ENVIRONMENT = 1 << 20  # bytes of an environment that are searched for the token
LONGEST_COMMAND = 4096  # bytes of a command line that are read
KERNELS = 2  # the parent of the kernel's own threads
HIDDEN = "hidden"  # the mark of processes whose environment cannot be read
TO_BECOME_ANOTHER = 0.06  # seconds that an exec may take
BETWEEN_ATTEMPTS = 0.1  # seconds
DEAD = b"ZX"


T = TypeVar("T")


@attrs.frozen
class Entry:
    """One process as the kernel lists it (proc_pid_stat(5)).

    Attributes:
        pid: its process id.
        parent: the pid of its parent.
        session: the id of its session.
        started: its start time, in clock ticks since the boot.
    """

    pid: int
    parent: int
    session: int
    started: int


@attrs.frozen
class Table:
    """The processes that live at one moment; zombies are left out.

    Attributes:
        entries: by pid.
        children: the pids of each process's children.
        marked: processes by mark: by a number, the process with this pid and the members of this
        session; by a variable and its token, the processes that carry it; by `HIDDEN`, the
        processes whose environment cannot be read.
    """

    entries: Mapping[int, Entry]
    children: Mapping[int, Sequence[int]]
    marked: Mapping[object, Sequence[Entry]]

    @classmethod
    def now(cls) -> Table:
        """Read all processes, once for all lives, as there may be hundreds of both."""
        names = os.listdir("/proc")  # noqa: PTH208 -- Paths of all would take longer than the look
        found = [entry for name in names if name.isdecimal() and (entry := entry_of(int(name)))]
        children: dict[int, list[int]] = {}
        marked: dict[object, list[Entry]] = {}
        for entry in found:
            children.setdefault(entry.parent, []).append(entry.pid)
            environment = environment_of(entry.pid)
            marks = {entry.pid, entry.session, *_tokens_in(environment)}
            if not environment and entry.parent != KERNELS:
                marks.add(HIDDEN)
            for mark in marks:
                marked.setdefault(mark, []).append(entry)
        return cls({entry.pid: entry for entry in found}, children, marked)

    def below(self, roots: Iterable[int]) -> list[int]:
        """Return these processes and all their descendants."""
        found: dict[int, None] = {}
        left = list(roots)
        while left:
            pid = left.pop()
            if pid not in found:
                found[pid] = None
                left += self.children.get(pid, ())
        return list(found)


@attrs.frozen
class Orphan:
    """A process that was handed over to this one.

    Attributes:
        entry: its entry.
        tokens: the token variables that it carries.
        outputs: where it writes to.
        hides: whether its environment cannot be read.
    """

    entry: Entry
    tokens: Mapping[str, str]
    outputs: frozenset[str]
    hides: bool


def _orphans() -> list[Orphan]:
    found = (entry for pid in BROOD.orphans() if (entry := entry_of(pid)))
    return [_orphan(entry) for entry in found]


def _orphan(entry: Entry) -> Orphan:
    environment = environment_of(entry.pid)
    outputs = frozenset(outputs_of(entry.pid))
    return Orphan(entry, dict(_tokens_in(environment)), outputs, not environment)


@attrs.define(eq=False)
class Look(Generic[T]):
    """A look at processes that is shared by all callers who want one at the same time.

    Attributes:
        take: does the look, in a thread, as a process that hangs can block the thread that reads
        it.
    """

    take: Callable[[], T]
    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _next: _Pending[T] | None = attrs.field(default=None, init=False)

    async def now(self) -> T:
        """Return the result of a look that began after the call."""
        while True:
            pending = self._next = self._next or _Pending()
            if pending.is_taken:
                await pending.done.wait()
            else:
                pending.is_taken = True
                try:
                    async with self._one:
                        self._next = None
                        pending.seen = [await self._look()]
                finally:
                    self._next = None if self._next is pending else self._next
                    pending.done.set()
            if pending.seen:
                return pending.seen[0]

    async def _look(self) -> T:
        """Look; try again while no file descriptor is left to look with."""
        while True:
            try:
                return await trio.to_thread.run_sync(self.take, abandon_on_cancel=True)
            except RuntimeError:  # no thread is left
                return self.take()
            except OSError:
                await trio.sleep(BETWEEN_ATTEMPTS)


@attrs.define(eq=False)
class _Pending(Generic[T]):
    is_taken: bool = False
    seen: list[T] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)


_TABLE, _ORPHANS = Look(Table.now), Look(_orphans)


async def table_now() -> Table:
    """Return the process table, read after the call."""
    return await _TABLE.now()


async def orphans_now() -> list[Orphan]:
    """Return the processes handed over to this one; if there are none, that is quick."""
    with contextlib.suppress(OSError):
        if not BROOD.orphans():
            return []
    return await _ORPHANS.now()


def entry_of(pid: int) -> Entry | None:
    """Return the entry of a process that lives; None if it does not."""
    fields = _fields_of(pid)
    if fields is None or fields[0] in DEAD:
        return None
    return Entry(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def start_of(pid: int) -> int | None:
    """Return a process's start time, in clock ticks since the boot; None if there is no process.

    This is the kernel's own number (proc_pid_stat(5), field 22). No change of the clock affects it.
    """
    fields = _fields_of(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int) -> bool:
    """Whether a process lives and is not a zombie."""
    fields = _fields_of(pid)
    return fields is not None and fields[0] not in DEAD


def _fields_of(pid: int) -> list[bytes] | None:
    """Return the fields that the kernel lists after a process's name."""
    text = _read(f"/proc/{pid}/stat", 4096)
    return text[text.rindex(b")") + 2 :].split() if b")" in text else None


def token_of(pid: int, variable: str = TOKEN) -> str:
    """Return the token that a process carries; empty if it has none, or hides it."""
    return dict(tokens_of(pid)).get(variable, "")


def tokens_of(pid: int) -> list[tuple[str, str]]:
    """Return the token variables that a process carries."""
    return _tokens_in(environment_of(pid))


def environment_of(pid: int) -> bytes:
    """Return a process's environment; empty if it is hidden, or during an exec."""
    return _read(f"/proc/{pid}/environ", LONGEST_ENVIRONMENT)


def _tokens_in(environment: bytes) -> list[tuple[str, str]]:
    if _BEGINNING not in environment:
        return []
    pairs = (pair.partition(b"=") for pair in environment.split(b"\0"))
    return [
        (name.decode(), value.decode(errors="replace"))
        for name, _, value in pairs
        if name in (TOKEN.encode(), COMMAND.encode())
    ]


def outputs_of(pid: int) -> set[str]:
    """Return where a process's output goes, as the kernel names it: ``pipe:[12]``, a path."""
    found = set()
    for number in (1, 2):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))  # noqa: PTH115 -- it names no file
    return found


def argv_of(pid: int) -> list[str]:
    """Return a process's command line, as far as it can be read."""
    text = _read(f"/proc/{pid}/cmdline", LONGEST_COMMAND)
    return [word.decode(errors="replace") for word in text.split(b"\0")]


def name_of(pid: int) -> str:
    """Return the name of a process's program, as one line."""
    name = _read(f"/proc/{pid}/comm", 64).decode(errors="replace").strip()
    return "".join(letter for letter in name if letter.isprintable())


def owned_by(owner: str, table: Table) -> set[str]:
    """Return the tokens that an owner has given and that a living process carries."""
    pairs = (mark for mark in table.marked if isinstance(mark, tuple) and mark[0] == TOKEN)
    return {token for _, token in pairs if token.startswith(f"{owner}.")}


def _read(path: str, most: int) -> bytes:
    """Return what is in a file of /proc; empty if its process has ended, or hides it.

    Raises:
        OSError: no file descriptor is left to look with.
    """
    parts: list[bytes] = []
    with if_there():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while most > 0 and (part := os.read(descriptor, min(most, 65536))):
                parts.append(part)
                most -= len(part)
        finally:
            os.close(descriptor)
    return b"".join(parts)
