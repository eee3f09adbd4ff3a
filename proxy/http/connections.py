"""The connections of clients that are open: how many there may be, and which of them goes first.

Owns the list. What is said on a connection is its own; accepting them is `listening`'s.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import structlog
import trio

from proxy.http.http1 import Connection

KEPT_FREE = 0.5  # the part of all descriptors that is for models, their connections, and files
NEW = 1.0  # seconds in which a client that has just come may begin its request
NO_LIMIT = 1 << 20
LEAST = 16  # connections that there may be, however few descriptors there are
BETWEEN_LINES = 60.0  # seconds between two lines of the log about it

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


def most_connections() -> int:
    """Return how many connections of clients the system's limit leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return NO_LIMIT
    return max(LEAST, int(soft * (1 - KEPT_FREE)))


@attrs.define(eq=False)
class Connections:
    """What is open.

    Attributes:
        most: how many there may be.
    """

    most: int = attrs.field(factory=most_connections)
    _open: dict[Connection, None] = attrs.field(factory=dict, init=False)
    _arriving: int = attrs.field(default=0, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _told_at: float = attrs.field(default=-BETWEEN_LINES, init=False)

    @contextmanager
    def listed(self, connection: Connection) -> Iterator[None]:
        """List a connection for as long as the block lasts."""
        self._open[connection] = None
        try:
            yield
        finally:
            del self._open[connection]
            self._tell()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count one that is not encrypted yet for as long as the block lasts."""
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def make_room(self) -> None:
        """Return when one more connection may be taken: an idle one goes, or one that ends."""
        while len(self._open) + self._arriving >= self.most:
            self.let_one_go(f"{self.most} connections are open")
            with trio.move_on_after(1):
                await self._changed.wait()

    def let_one_go(self, why: str) -> None:
        """Close the connection that has been idle longest, if one is."""
        now = trio.current_time()
        idle = max(self._open, key=lambda one: one.idle_for(now), default=None)
        if idle is not None and idle.idle_for(now) > NEW:
            idle.close()
        if now - self._told_at >= BETWEEN_LINES:
            self._told_at = now
            log.warning(
                f"No room for more connections ({why}): idle ones are closed first; if clients are "
                "many, raise the limit of open files (ulimit -n, LimitNOFILE)",
                reason=why,
            )

    async def all_closed(self) -> None:
        """Wait for the last one."""
        while self._open:
            await self._changed.wait()

    def finish(self) -> None:
        """Let each end after its present request."""
        for connection in tuple(self._open):
            connection.finish()

    def cut(self) -> None:
        """Close all; a send that waits for its client ends with an error."""
        for connection in tuple(self._open):
            connection.close()
