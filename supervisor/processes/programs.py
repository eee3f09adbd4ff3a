"""Which of some programs run on this machine, by the names that people know.

Owns what counts as a program's name. `scheduling.yielding` decides what follows if one runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from supervisor.processes.census import (
    COMMAND,
    TOKEN,
    Look,
    argv_of,
    is_alive,
    name_of,
    tokens_of,
)

LONGEST_COMM = 15  # characters that the kernel keeps of a name (proc_pid_comm(5))
_INTERPRETER = re.compile(
    r"(?:python|perl|ruby|node|java|wine|proton)[\w.-]*|(?:ba|da|z|k|fi)?sh|busybox|env"
)
_FOLDER = re.compile(r"[/\\]")  # for programs of Windows, too


async def programs_now(names: Collection[str]) -> tuple[str, ...]:
    """Return which of these programs run now; a thread looks.

    Args:
        names: as operators write them, such as ``steam`` or ``train.py``; only the last part of a
        path counts.
    """
    return await Look(partial(programs_among, tuple(names))).now() if names else ()


def programs_among(names: Sequence[str]) -> tuple[str, ...]:
    """Return which of these programs run, in their order; the daemon's own do not count."""
    wanted, found = {_base_of(name) for name in names} - {""}, set[str]()
    for folder in os.listdir("/proc"):  # noqa: PTH208 -- Paths of all take longer than the look
        if folder.isdecimal() and not (wanted - found).isdisjoint(_names_of(int(folder), wanted)):
            pid = int(folder)
            if is_alive(pid) and not _is_ours(pid):
                found |= wanted & set(_names_of(pid, wanted))
    return tuple(name for name in names if _base_of(name) in found)


def _names_of(pid: int, wanted: Collection[str]) -> Iterator[str]:
    """Yield the names that a process goes by, including wanted names that may be its name."""
    comm = name_of(pid)
    yield comm
    if len(comm) >= LONGEST_COMM:
        yield from (name for name in wanted if name[:LONGEST_COMM] == comm)
    argv = argv_of(pid)
    first = _base_of(argv[0])
    yield first
    if len(argv) > 1 and _INTERPRETER.fullmatch(first):
        yield _base_of(argv[1])


def _base_of(path: str) -> str:
    return _FOLDER.split(path)[-1]


def _is_ours(pid: int) -> bool:
    """Whether this is the daemon, a model server, or a model's command."""
    return pid == os.getpid() or any(name in (TOKEN, COMMAND) for name, _ in tokens_of(pid))
