"""State folders of configurations that are gone: removed when a daemon starts.

Owns when a folder is of no use any more: its files are gone, no daemon has it, and no process that
the folder tells of may live. Only folders of this user and of this machine are looked at.
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

from proxy.lifecycle.whereabouts import ELSEWHERE, NAME, read, state_home
from supervisor.succession.records import STATE, may_tell_of_life

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


MOUNTED = ("/media", "/mnt", "/net", "/run/media", "/Volumes")  # what lies there comes and goes


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
            with contextlib.suppress(OSError):  # somebody uses it, or it is another user's
                here = read(folder / NAME) if folder != own and not folder.is_symlink() else None
                if here is None or here.host != os.uname().nodename:
                    continue
                if folder.name.startswith(ELSEWHERE):
                    if not here.is_alive:
                        shutil.rmtree(folder)
                elif here.files and all(map(_is_gone, here.files)):
                    with _locked(folder):
                        gone += here.files if _remove(folder) else ()
    return gone


def _is_gone(name: str) -> bool:
    """Whether a file is no more, and is not just out of reach.

    Raises:
        OSError: it cannot be said.
    """
    file = Path(name)
    try:
        file.stat()
    except FileNotFoundError:
        above = next(folder for folder in file.parents if os.path.lexists(folder))
        is_mounted = any(above.is_relative_to(root) for root in MOUNTED)
        return not is_mounted and not above.is_symlink() and any(above.iterdir())
    return False


def _remove(folder: Path) -> bool:
    """Remove a state folder, under another name first, so that no half of it is left behind."""
    if may_tell_of_life(folder / STATE):
        return False
    aside = folder.with_name(f".{folder.name}.gone")
    folder.rename(aside)
    shutil.rmtree(aside)
    return True


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
