"""The last output of a model and of its commands, bounded.

Owns bytes in, lines out. What an operator reads of the daemon itself is elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

TAIL = 8192  # bytes that are looked at for the last lines
LONGEST_LINE = 300  # characters; of a longer one the end is shown
DEFAULT_CAPACITY = 100 * 1024  # llama-swap keeps as much per model


@attrs.define(eq=False)
class LogRing:
    """Keep the newest output, whole chunks at a time.

    Attributes:
        capacity: bytes kept.
        on_write: told of all output, too.
    """

    capacity: int = DEFAULT_CAPACITY
    on_write: Callable[[bytes], None] = lambda _: None
    _chunks: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)

    def write(self, chunk: bytes) -> None:
        """Add output; the oldest goes when there is too much."""
        self._chunks.append(chunk[-self.capacity :])
        self._size += len(self._chunks[-1])
        while self._size > self.capacity:
            self._size -= len(self._chunks.popleft())
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


def _readable(line: str) -> str:
    """Cut a line to what one reads, without what would move a terminal's cursor."""
    shown = "".join(letter if letter.isprintable() else " " for letter in line[-LONGEST_LINE:])
    return shown.strip()
