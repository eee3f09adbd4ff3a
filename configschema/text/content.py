"""What is in a file that somebody has named: bounded, and never waited for without end.

Owns the reading. Which files there are is known by `reading`.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

from configschema.text.problems import ConfigError, Problem

LONGEST = 16 * 1024 * 1024  # bytes of a file
PIECE = 64 * 1024
SLOWEST_PIPE = 5  # seconds for the next piece of what a program writes


def content_of(path: Path) -> bytes:
    """Return what is in a file, or comes from a pipe.

    Raises:
        ConfigError: it is too long to be a configuration, or nothing comes.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 -- a descriptor, no path
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        content = bytearray()
        while True:
            if not ready.poll(SLOWEST_PIPE * 1000):
                raise _useless(path, f"nothing has come from it for {SLOWEST_PIPE} s")
            try:
                piece = file.read(PIECE)
            except OSError as error:  # which does not know of which file
                raise OSError(error.errno, error.strerror, str(path)) from None
            if not piece:
                return bytes(content)
            content += piece
            if len(content) > LONGEST:
                most = f"{LONGEST // 1024 // 1024} MiB"
                raise _useless(path, f"it has more than {most}: this is no configuration")


def _useless(path: Path, reason: str) -> ConfigError:
    return ConfigError([Problem(str(path), 1, 1, "", reason)])
