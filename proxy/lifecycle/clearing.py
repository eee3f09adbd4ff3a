"""Removal of state folders whose configurations are gone, when a daemon starts.

Owns when a folder is obsolete: its files are gone, no daemon uses it, and no process that its
records name may be alive. Only this user's folders of this machine are considered.
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


MOUNTED = ("/media", "/mnt", "/net", "/run/media", "/Volumes")  # files there come and go


async def clear_abandoned(own: Path) -> None:
    """Remove obsolete state folders, and log it.

    Args:
        own: this daemon's state folder. If the operator chose it, nothing is removed.
    """
    if own.parent == state_home():
        with contextlib.suppress(RuntimeError):  # no thread is left: the next start does it
            gone = await trio.to_thread.run_sync(partial(_clear, own), abandon_on_cancel=True)
            if gone:
                what = f"{len(gone)} configuration{'' if len(gone) == 1 else 's'}"
                log.info(f"Removed the state of {what} whose files are gone", files=gone)


def _clear(own: Path) -> list[str]:
    """Remove obsolete folders, and return the configuration files that they belonged to."""
    gone: list[str] = []
    with contextlib.suppress(OSError):
        for folder in sorted(own.parent.iterdir()):
            with contextlib.suppress(OSError):  # a daemon uses it, or another user owns it
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
    """Whether a file has been deleted, and is not just unreachable.

    Raises:
        OSError: nobody can tell.
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
    """Rename a state folder, then remove it, so that no half of it remains under its name."""
    if may_tell_of_life(folder / STATE):
        return False
    aside = folder.with_name(f".{folder.name}.gone")
    folder.rename(aside)
    shutil.rmtree(aside)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, as a daemon that uses the folder does.

    Raises:
        OSError: a daemon holds it, or there is no lock.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
