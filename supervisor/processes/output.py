"""What a process writes, on its way to the daemon: through a pipe, or by way of a file.

A pipe's end is the end of all who write to it, but it breaks with the daemon. A file outlives the
daemon; it is followed, and kept short.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs
import trio

from supervisor.processes.groups import signal_group, until_gone

LARGEST_FILE = 10 * 1024 * 1024  # bytes; a larger one is emptied
BETWEEN_LOOKS = 0.25  # seconds
PIECE = 65536

Hear = Callable[[bytes], None]


class Output(Protocol):
    """Where a process writes to."""

    async def follow(self, hear: Hear) -> None:
        """Pass on what is written until the end, or until this is closed."""

    async def ended(self, group: int) -> None:
        """Wait until nobody of the group writes any more."""

    async def drained(self, group: int) -> None:
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

    async def ended(self, group: int) -> None:
        """Wait for the end, unless only an escapee holds the pipe: it has no grace."""
        if signal_group(group, 0):
            await self._drained.wait()

    async def drained(self, group: int) -> None:
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

    async def ended(self, group: int) -> None:
        """Wait until the group is gone; a file does not tell of it."""
        await until_gone(group)

    async def drained(self, group: int) -> None:
        """Wait until the group is gone."""
        await until_gone(group)

    async def aclose(self) -> None:
        """End the following; the file stays."""
        self._closed.set()
        await trio.lowlevel.checkpoint()
