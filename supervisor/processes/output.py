"""What a process writes, on its way to the daemon: through a pipe or through a file.

A pipe ends when all its writers have ended, but it breaks with the daemon. A file outlives the
daemon; llamadoze follows it and keeps it short. The newest output is kept in memory, bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs
import trio

LARGEST_FILE = 10 * 1024 * 1024  # bytes; a larger file is emptied
BETWEEN_LOOKS = 0.25  # seconds
PIECE = 65536
TAIL = 8192  # bytes that are searched for the last lines
LONGEST_LINE = 300  # characters; of a longer line the end is shown
DEFAULT_CAPACITY = 100 * 1024  # bytes, as many as llama-swap keeps per model
ESCAPE = b"\x1b"
# Colours, cursor movements, window titles (ECMA-48, 5.3 to 5.6), in the order of their forms.
_SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\"
    rb"|[ -/]*[0-OQ-WYZ\\`-~])"
)
_WIDE = b"\xc2"  # begins the controls of ECMA-48's 8-bit form in UTF-8
_WIDE_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")
_WIDE_SEQUENCE = b"\xc2\x9b"  # the same as escape and bracket
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\r"})
# What may continue as one of these sequences, or as a control of two bytes.
_BEGUN = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)|\xc2)\Z"
)
LONGEST_SEQUENCE = 256  # bytes of a sequence whose end may still arrive

Hear = Callable[[bytes], None]


class Output(Protocol):
    """Where a process writes to."""

    async def follow(self, hear: Hear) -> None:
        """Pass on what is written until the end, or until this is closed."""

    async def drained(self) -> None:
        """Wait until no process writes any more, as far as that can be told."""

    async def aclose(self) -> None:
        """Close it."""


@attrs.define(eq=False)
class Pipe:
    """The reading end of a pipe that only a process group writes to."""

    stream: trio.abc.ReceiveStream
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def follow(self, hear: Hear) -> None:
        """Read to the end, which comes when the last descendant has closed the pipe."""
        # Shielded: the reader outlives a cancelled owner, so that the group's last output is read.
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            while piece := await self.stream.receive_some():
                hear(bytes(piece))
        self._drained.set()

    async def drained(self) -> None:
        """Wait for the end, whichever process holds the pipe."""
        await self._drained.wait()

    async def aclose(self) -> None:
        """Close the reading end."""
        await self.stream.aclose()


@attrs.define(eq=False)
class LogFile:
    """A file that a process appends to; `position` is the end of what was read."""

    path: Path
    position: int = 0
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def follow(self, hear: Hear) -> None:
        """Read it at intervals; not every platform can wait for a file to grow."""
        with trio.CancelScope(shield=True), contextlib.ExitStack() as closing:
            try:  # kept open: it stays the process's file even if it is removed or renamed
                file = closing.enter_context(self.path.open("rb+"))
            except OSError:
                await self._closed.wait()
                return
            while not self._closed.is_set():
                self._hear(file, hear)
                with trio.move_on_after(BETWEEN_LOOKS):
                    await self._closed.wait()
            self._hear(file, hear)

    def _hear(self, file: BinaryIO, hear: Hear) -> None:
        with contextlib.suppress(OSError):
            size = os.fstat(file.fileno()).st_size
            if size < self.position:
                self.position = 0  # something else has emptied it
            file.seek(max(self.position, size - LARGEST_FILE))
            while piece := file.read(PIECE):
                hear(piece)
            self.position = file.tell()
            if self.position > LARGEST_FILE:
                file.truncate(0)  # a process that appends continues at the new end
                self.position = 0

    async def drained(self) -> None:
        """Return at once: a file does not tell which processes write to it."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Stop following; the file stays."""
        self._closed.set()
        await trio.lowlevel.checkpoint()


class _NoOutput:
    """The output of a process that writes where llamadoze cannot see it."""

    async def follow(self, hear: Hear) -> None:
        """Pass on nothing."""
        await trio.lowlevel.checkpoint()

    async def drained(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""
        await trio.lowlevel.checkpoint()


NO_OUTPUT: Output = _NoOutput()


@attrs.define(eq=False)
class LogRing:
    """Keeps the newest output, whole chunks at a time.

    Attributes:
        capacity: bytes kept.
        on_write: also called with all output, if it is set.

    Sequences that only move the cursor or colour a terminal are left out.
    """

    capacity: int = DEFAULT_CAPACITY
    on_write: Callable[[bytes], None] | None = None
    _begun: bytes = attrs.field(default=b"", init=False)  # of a sequence that has no end yet
    _chunks: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)

    def write(self, chunk: bytes) -> None:
        """Add output, without sequences that move the cursor or colour a terminal."""
        if self._begun or ESCAPE in chunk or _WIDE in chunk:
            chunk, self._begun = _split_at_begun(without_escapes(self._begun + chunk))
        chunk = chunk.translate(None, _CONTROLS)
        if chunk:
            self.keep(chunk)

    def keep(self, chunk: bytes) -> None:
        """Add output that has no controls in it; the oldest is dropped if there is too much."""
        self._chunks.append(chunk[-self.capacity :])
        self._size += len(self._chunks[-1])
        while self._size > self.capacity:
            self._size -= len(self._chunks.popleft())
        if self.on_write is not None:
            self.on_write(chunk)

    def clear(self) -> None:
        """Drop what is kept."""
        self._chunks.clear()
        self._size = 0

    def text(self) -> bytes:
        """Return all that is kept."""
        return b"".join(self._chunks)

    def tail(self, count: int) -> list[str]:
        """Return the last lines that are not blank, oldest first."""
        text = self.text()[-TAIL:].decode("utf-8", "replace")
        lines = [_readable(line) for line in text.splitlines() if line.strip()]
        return lines[-count:]


def without_escapes(data: bytes) -> bytes:
    """Return a text without the sequences that move the cursor or colour a terminal."""
    if _WIDE in data:
        data = _WIDE_CONTROL.sub(b"", data.replace(_WIDE_SEQUENCE, ESCAPE + b"["))
    return _SEQUENCE.sub(b"", data)


def _split_at_begun(data: bytes) -> tuple[bytes, bytes]:
    """Split off an unfinished sequence at the end: its rest may still arrive."""
    begun = _BEGUN.search(data, max(0, len(data) - LONGEST_SEQUENCE))
    return (data[: begun.start()], begun[0]) if begun else (data, b"")


def _readable(line: str) -> str:
    """Cut a line to a readable length, without controls that move a terminal's cursor."""
    shown = "".join(letter if letter.isprintable() else " " for letter in line[-LONGEST_LINE:])
    return shown.strip()
