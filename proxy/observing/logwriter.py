"""The way of the log to whoever reads it, which may be slower than it is written: nobody waits.

Owns what is not written yet, bounded, and the thread that writes it. What there is no room for is
counted, and said when there is room again.
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
NEVER_WAITS = 4096  # bytes that a pipe takes whole where it takes any (PIPE_BUF of Linux)
LAST_WORDS = 1.0  # seconds for the rest of the log at the end


def notice_as_text(dropped: int) -> bytes:
    """Return what is said of lines that there was no room for."""
    return f"{dropped} lines dropped: the log is read too slowly\n".encode()


@attrs.define(eq=False)
class LogWriter:
    """Write to a file, terminal or pipe without ever waiting for it.

    Attributes:
        notice: makes a line of how many lines were dropped.
    """

    _file: TextIO
    notice: Callable[[int], bytes] = notice_as_text
    _descriptor: int = attrs.field(init=False)
    _kind: int = attrs.field(default=0, init=False)
    _unwritten: deque[bytes] = attrs.field(factory=deque, init=False)
    _queued: int = attrs.field(default=0, init=False)  # bytes in all; written by the loop only
    _written: int = attrs.field(default=0, init=False)  # the same; by the thread only
    _dropped: int = attrs.field(default=0, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _wake: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0), init=False)
    _has_written: threading.Event = attrs.field(factory=threading.Event, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._descriptor = self._file.fileno()
            self._kind = os.fstat(self._descriptor).st_mode
        except (OSError, ValueError):  # it is no file of the system
            self._descriptor = -1

    def write(self, data: bytes) -> None:
        """Write at once if nobody has to wait for it, else soon, or never."""
        if self._descriptor < 0:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
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
        # Of a terminal, "writable" does not say how much it takes.
        if os.isatty(self._descriptor) or len(data) > NEVER_WAITS:
            return False
        return self._poll(0)

    def _write_now(self, data: bytes) -> bytes:
        """Write; return what would have to wait, where others have made the file not wait."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:  # the reader went away, or the disk is full
            pass
        return b""

    def _queue(self, data: bytes) -> None:
        if self._queued - self._written + len(data) > MOST_UNWRITTEN:
            self._dropped += 1
            return
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
            # Taken out only now: as long as it is there, nothing overtakes it.
            self._unwritten.popleft()
            self._written += len(data)
            self._has_written.set()

    def _poll(self, limit: int | None) -> bool:
        """Wait until something can be written, for so many milliseconds; return whether it can."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(limit))

    def flush(self) -> None:
        """Wait for the rest to be written, but not for long."""
        if self._dropped:
            self._queue(b"")
        end = time.monotonic() + LAST_WORDS
        while self._unwritten and (left := end - time.monotonic()) > 0:
            self._has_written.clear()
            if self._unwritten:
                self._has_written.wait(left)
