"""Request bodies that arrive as a test says, without a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs
import trio


@attrs.define(eq=False)
class Arriving:
    """A body in pieces, with a pause before each; the last piece completes the body."""

    _pieces: deque[bytes]
    pause: float = 0
    all_read: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, pieces: Iterable[bytes], pause: float = 0) -> Arriving:
        return cls(deque(filter(None, pieces)), pause)

    async def read(self) -> bytes:
        await trio.sleep(self.pause)
        piece = self._pieces.popleft() if self._pieces else b""
        self.all_read = not self._pieces
        return piece
