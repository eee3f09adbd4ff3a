"""What a listener has not read yet, bounded in bytes: one that does not read costs little.

Owns the order and the bound. What becomes of a listener that is too slow is not decided here.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio


@attrs.define(eq=False)
class Unread:
    """Messages that wait for one reader.

    Attributes:
        most: bytes that may wait.
    """

    most: int
    _waiting: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def put(self, message: bytes) -> bool:
        """Add a message; return whether there was room for it."""
        if self._is_closed or self._size + len(message) > self.most:
            return False
        self._waiting.append(message)
        self._size += len(message)
        self._changed.set()
        return True

    def close(self) -> None:
        """Let the reader have what waits, and nothing after it."""
        self._is_closed = True
        self._changed.set()

    async def take(self) -> list[bytes]:
        """Return all that waits, once something does.

        Raises:
            trio.EndOfChannel: nothing more comes.
        """
        while not self._waiting:
            if self._is_closed:
                raise trio.EndOfChannel
            self._changed = trio.Event()
            await self._changed.wait()
        taken, self._size = list(self._waiting), 0
        self._waiting.clear()
        return taken
