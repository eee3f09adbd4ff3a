"""The content of a file that the operator has named: bounded in size and in waiting time.

Owns the reading. `reading` knows which files belong to a configuration.
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
SLOWEST_PIPE = 5  # seconds to wait for a program's next piece


def content_of(path: Path) -> bytes:
    """Return the content of a file or of a pipe.

    Raises:
        ConfigError: the content is too long for a configuration, or the pipe stays silent.
        OSError: the file cannot be read.
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
                raise _useless(path, f"no data has arrived for {SLOWEST_PIPE} s")
            try:
                piece = file.read(PIECE)
            except OSError as error:  # its message lacks the file's name
                raise OSError(error.errno, error.strerror, str(path)) from None
            if not piece:
                return bytes(content)
            content += piece
            if len(content) > LONGEST:
                most = f"{LONGEST // 1024 // 1024} MiB"
                raise _useless(path, f"the file is larger than {most}, so it is no configuration")


def _useless(path: Path, reason: str) -> ConfigError:
    return ConfigError([Problem(str(path), 1, 1, "", reason)])
