"""Files whose places others may have taken: to open a pipe would wait for its other end.

Owns reading and opening without waiting. What is in them is their readers' business.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NoPlainFile(OSError):
    """Something else is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(0, "it is no regular file", str(path))


def text_of(path: Path, most: int) -> str:
    """Return how a file begins.

    Args:
        path: of the file.
        most: characters that are read.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    descriptor = _opened(path, os.O_RDONLY)
    with os.fdopen(descriptor) as file:
        return file.read(most)


def new_file(path: Path) -> BinaryIO:
    """Open an empty file to append to, which only its owner may read: it may hold what was said.

    Raises:
        OSError: it cannot be written, or something else is there.
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
