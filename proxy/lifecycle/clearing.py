"""State folders of configurations that are gone: removed when a daemon starts.

Owns when a folder is of no use any more: its files are gone, no daemon has it, and no process that
it tells of may live. Only this user's own folders are looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
import trio

from proxy.lifecycle.whereabouts import NAME, read, state_home
from supervisor.succession.records import STATE, read_records

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


async def clear_abandoned(own: Path) -> None:
    """Remove them, and say so.

    Args:
        own: the state folder of this daemon; if it was chosen by hand, nothing is removed.
    """
    if own.parent == state_home():
        with contextlib.suppress(RuntimeError):  # there is no thread left: the next start does it
            gone = await trio.to_thread.run_sync(partial(_clear, own), abandon_on_cancel=True)
            if gone:
                what = f"{len(gone)} configuration{'' if len(gone) == 1 else 's'}"
                log.info(f"Removed the state of {what} whose files are gone", files=gone)


def _clear(own: Path) -> list[str]:
    """Return the files whose state folders were removed."""
    gone: list[str] = []
    with contextlib.suppress(OSError):
        for folder in sorted(own.parent.iterdir()):
            here = read(folder / NAME) if folder != own else None
            if here is not None and here.files and all(map(_is_gone, here.files)):
                with contextlib.suppress(OSError), _locked(folder):
                    if not read_records(folder / STATE):
                        shutil.rmtree(folder, ignore_errors=True)
                        gone.extend(here.files)
    return gone


def _is_gone(name: str) -> bool:
    """Whether a file is no more; it may come back where nothing is mounted at the moment."""
    file = Path(name)
    if not file.is_absolute() or os.path.lexists(file):
        return False
    above = next(folder for folder in file.parents if folder.is_dir())
    return any(above.iterdir())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a daemon has that uses it.

    Raises:
        OSError: one does, or there is no lock.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
