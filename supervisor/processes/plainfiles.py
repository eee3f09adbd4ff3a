"""Files at paths where something else may be: opening a named pipe would wait for its other end.

Owns reading and opening without waiting. The readers know what is in the files.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NoPlainFile(OSError):
    """Something else is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(0, "it is not a regular file", str(path))


def text_of(path: Path, most: int) -> str:
    """Return the beginning of a file.

    Args:
        path: the path of the file.
        most: characters to read at most.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    descriptor = _opened(path, os.O_RDONLY)
    with os.fdopen(descriptor) as file:
        return file.read(most)


def new_file(path: Path) -> BinaryIO:
    """Open an empty file to append to; only its owner may read it, as it may hold prompts.

    Raises:
        OSError: the file cannot be written, or something else is there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = _opened(path, flags)
    os.ftruncate(descriptor, 0)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "ab")


def why_not_writable(path: Path) -> str | None:
    """Return why a file cannot be written, or None."""
    try:
        os.close(_opened(path, os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoPlainFile(path)
    return descriptor
