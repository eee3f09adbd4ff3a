"""Messages that a listener has not read yet, limited in bytes: a slow listener costs little.

Owns their order and their limit. The caller decides what happens to a listener that is too slow.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio


@attrs.define(eq=False)
class Unread:
    """Messages that wait for one reader.

    Attributes:
        most: bytes that may wait at once.
        is_closed: whether no more messages are accepted.
    """

    most: int
    _waiting: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)
    is_closed: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def put(self, message: bytes) -> bool:
        """Add a message; return whether there was room for it."""
        if self.is_closed or self._size + len(message) > self.most:
            return False
        self._waiting.append(message)
        self._size += len(message)
        self._changed.set()
        return True

    def close(self) -> None:
        """Accept no more messages. The reader still gets those that wait."""
        self.is_closed = True
        self._changed.set()

    async def take(self) -> list[bytes]:
        """Wait until there are messages, and return all of them.

        Raises:
            trio.EndOfChannel: no more messages will come.
        """
        while not self._waiting:
            if self.is_closed:
                raise trio.EndOfChannel
            self._changed = trio.Event()
            await self._changed.wait()
        taken, self._size = list(self._waiting), 0
        self._waiting.clear()
        return taken
