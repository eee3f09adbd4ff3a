"""What a process writes, on its way to the daemon: through a pipe, or by way of a file.

A pipe's end is the end of all who write to it, but it breaks with the daemon. A file outlives the
daemon; it is followed, and kept short. The newest of it is kept in memory, bounded.
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

LARGEST_FILE = 10 * 1024 * 1024  # bytes; a larger one is emptied
BETWEEN_LOOKS = 0.25  # seconds
PIECE = 65536
TAIL = 8192  # bytes that are looked at for the last lines
LONGEST_LINE = 300  # characters; of a longer one the end is shown
DEFAULT_CAPACITY = 100 * 1024  # llama-swap keeps as much per model
ESCAPE = b"\x1b"
# Colours, the cursor, titles of windows (ECMA-48, 5.3 to 5.6), in this order of their forms.
_SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\"
    rb"|[ -/]*[0-OQ-WYZ\\`-~])"
)
_WIDE = b"\xc2"  # begins the controls of ECMA-48's 8-bit form, as UTF-8 has them
_WIDE_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")
_WIDE_SEQUENCE = b"\xc2\x9b"  # as escape and bracket
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\r"})
# What may go on to be one of these, or a control of two bytes.
_BEGUN = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)|\xc2)\Z"
)
LONGEST_SEQUENCE = 256  # bytes of one whose end may come yet

Hear = Callable[[bytes], None]


class Output(Protocol):
    """Where a process writes to."""

    async def follow(self, hear: Hear) -> None:
        """Pass on what is written until the end, or until this is closed."""

    async def drained(self) -> None:
        """Wait until nobody at all writes any more, as far as that can be told."""

    async def aclose(self) -> None:
        """Let go of it."""


@attrs.define(eq=False)
class Pipe:
    """The reading end of a pipe that only a process group writes to."""

    stream: trio.abc.ReceiveStream
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def follow(self, hear: Hear) -> None:
        """Read to the end, which comes when the last descendant has closed it."""
        # Shielded: the reader must outlive a cancelled owner, or the group could not say goodbye.
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            while piece := await self.stream.receive_some():
                hear(bytes(piece))
        self._drained.set()

    async def drained(self) -> None:
        """Wait for the end, whoever holds the pipe."""
        await self._drained.wait()

    async def aclose(self) -> None:
        """Close the reading end."""
        await self.stream.aclose()


@attrs.define(eq=False)
class LogFile:
    """A file that a process appends to; `position` is how much of it was heard."""

    path: Path
    position: int = 0
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def follow(self, hear: Hear) -> None:
        """Look at it now and then; there is no waiting for a file to grow on every platform."""
        with trio.CancelScope(shield=True), contextlib.ExitStack() as closing:
            try:  # held open: it is the same file to the process, too, if it is removed or renamed
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
                self.position = 0  # somebody else has emptied it
            file.seek(max(self.position, size - LARGEST_FILE))
            while piece := file.read(PIECE):
                hear(piece)
            self.position = file.tell()
            if self.position > LARGEST_FILE:
                file.truncate(0)  # who appends goes on at its new end
                self.position = 0

    async def drained(self) -> None:
        """Return at once: a file does not tell who writes to it."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End the following; the file stays."""
        self._closed.set()
        await trio.lowlevel.checkpoint()


class _NoOutput:
    """What is written by others to where we cannot see it."""

    async def follow(self, hear: Hear) -> None:
        """Hear nothing."""
        await trio.lowlevel.checkpoint()

    async def drained(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Have nothing to let go of."""
        await trio.lowlevel.checkpoint()


NO_OUTPUT: Output = _NoOutput()


@attrs.define(eq=False)
class LogRing:
    """Keep the newest output, whole chunks at a time.

    Attributes:
        capacity: bytes kept.
        on_write: told of all output, too, if it is there.

    What only moves or colours a terminal is left out.
    """

    capacity: int = DEFAULT_CAPACITY
    on_write: Callable[[bytes], None] | None = None
    _begun: bytes = attrs.field(default=b"", init=False)  # of a sequence that has no end yet
    _chunks: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)

    def write(self, chunk: bytes) -> None:
        """Add output, without what would move or colour a terminal."""
        if self._begun or ESCAPE in chunk or _WIDE in chunk:
            chunk, self._begun = _split_at_begun(without_escapes(self._begun + chunk))
        chunk = chunk.translate(None, _CONTROLS)
        if chunk:
            self.keep(chunk)

    def keep(self, chunk: bytes) -> None:
        """Add what is free of controls already; the oldest goes when there is too much."""
        self._chunks.append(chunk[-self.capacity :])
        self._size += len(self._chunks[-1])
        while self._size > self.capacity:
            self._size -= len(self._chunks.popleft())
        if self.on_write is not None:
            self.on_write(chunk)

    def clear(self) -> None:
        """Forget what is kept."""
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
    """Return a text without the sequences that move or colour a terminal."""
    if _WIDE in data:
        data = _WIDE_CONTROL.sub(b"", data.replace(_WIDE_SEQUENCE, ESCAPE + b"["))
    return _SEQUENCE.sub(b"", data)


def _split_at_begun(data: bytes) -> tuple[bytes, bytes]:
    """Split off what begins a sequence at the end: its rest may come yet."""
    begun = _BEGUN.search(data, max(0, len(data) - LONGEST_SEQUENCE))
    return (data[: begun.start()], begun[0]) if begun else (data, b"")


def _readable(line: str) -> str:
    """Cut a line to what one reads, without what would move a terminal's cursor."""
    shown = "".join(letter if letter.isprintable() else " " for letter in line[-LONGEST_LINE:])
    return shown.strip()
