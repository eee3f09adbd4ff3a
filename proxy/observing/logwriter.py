"""Writes the log to its reader, which may be slow. The event loop never waits for the reader.

Owns the lines that are not written yet, which are limited, and the thread that writes them. Lines
above the limit are dropped. When there is room again, the log says how many were dropped.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

import attrs

MOST_UNWRITTEN = 1 << 20  # bytes
NEVER_WAITS = 4096  # bytes that a writable pipe takes whole (PIPE_BUF of Linux)
LAST_WORDS = 1.0  # seconds to write the rest of the log at the end


def notice_as_text(dropped: int) -> bytes:
    """Return the line that says how many lines were dropped."""
    return f"{dropped} lines dropped: the reader of the log is too slow\n".encode()


@attrs.define(eq=False)
class LogWriter:
    """Writes to a file, terminal or pipe, and never waits for it.

    Attributes:
        notice: makes the line that says how many lines were dropped.
    """

    _file: TextIO
    notice: Callable[[int], bytes] = notice_as_text
    _descriptor: int = attrs.field(init=False)
    _kind: int = attrs.field(default=0, init=False)
    _unwritten: deque[bytes] = attrs.field(factory=deque, init=False)
    _queued: int = attrs.field(default=0, init=False)  # bytes in total; only the loop writes it
    _written: int = attrs.field(default=0, init=False)  # bytes in total; only the thread writes it
    _dropped: int = attrs.field(default=0, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _wake: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0), init=False)
    _has_written: threading.Event = attrs.field(factory=threading.Event, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._descriptor = self._file.fileno()
            self._kind = os.fstat(self._descriptor).st_mode
        except (OSError, ValueError):  # it has no file descriptor
            self._descriptor = -1

    def write(self, data: bytes) -> None:
        """Write at once if that does not wait. Else the thread writes it soon, or it is dropped."""
        if self._descriptor < 0:
            with contextlib.suppress(OSError, ValueError):  # it has no reader any more
                self._file.write(data.decode("utf-8", "replace"))
                self._file.flush()
        elif self._unwritten or self._dropped or not self._takes(data):
            self._queue(data)
        elif rest := self._write_now(data):
            self._queue(rest)

    def _takes(self, data: bytes) -> bool:
        """Whether these bytes can be written without waiting."""
        if stat.S_ISREG(self._kind):
            return True
        # A terminal that is "writable" may still take less than this.
        if os.isatty(self._descriptor) or len(data) > NEVER_WAITS:
            return False
        return self._poll(0)

    def _write_now(self, data: bytes) -> bytes:
        """Write. Return the rest if the file is non-blocking and would have to wait."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:  # the reader is gone, or the disk is full
            pass
        return b""

    def _queue(self, data: bytes) -> None:
        if self._queued - self._written + len(data) > MOST_UNWRITTEN:
            self._dropped += 1
            return
        self._put_in_line(data)

    def _put_in_line(self, data: bytes) -> None:
        if self._dropped:
            data, self._dropped = self.notice(self._dropped) + data, 0
        self._unwritten.append(data)
        self._queued += len(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
            self._thread.start()
        self._wake.release()

    def _drain(self) -> None:
        while True:
            self._wake.acquire()
            data = rest = self._unwritten[0]
            while rest := self._write_now(rest):
                self._poll(None)
            # Removed only now: while it is queued, no later line is written directly.
            self._unwritten.popleft()
            self._written += len(data)
            self._has_written.set()

    def _poll(self, limit: int | None) -> bool:
        """Wait up to `limit` milliseconds to write; return whether writing is possible."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(limit))

    def flush(self) -> None:
        """Wait up to `LAST_WORDS` until the rest is written."""
        if self._dropped:
            self._put_in_line(b"")
        end = time.monotonic() + LAST_WORDS
        while self._unwritten and (left := end - time.monotonic()) > 0:
            self._has_written.clear()
            if self._unwritten:
                self._has_written.wait(left)
