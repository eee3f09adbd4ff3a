"""The process of each model server whose descendants hold its memory.

Owns when this process is looked up: once for each server, as a container engine may take its time.
The server knows which process it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
import trio

LONGEST_QUESTION = 2.0  # seconds; a container engine is asked for a container's process
ASKED_AGAIN = 10.0  # seconds until the next question if the engine does not know


class Server(Protocol):
    """A model server, as far as this module needs it."""

    @property
    def life(self) -> object:
        """What identifies its process and the place where that serves; None without a process."""

    async def root(self) -> int | None:
        """Return the process whose descendants hold its memory, if that is visible."""


@attrs.frozen
class _Root:
    life: object
    pid: int | None
    until: float  # when to ask again if no process is known, on Trio's clock


@attrs.define(eq=False)
class Roots:
    """The roots of all model servers.

    Attributes:
        servers: the servers by the id of their model.
    """

    servers: Mapping[str, Server]
    _known: dict[str, _Root] = attrs.field(factory=dict, init=False)

    async def now(self) -> dict[str, int]:
        """Return the roots of the running servers, as far as they are visible."""
        self._known = {
            name: one for name, one in self._known.items() if self._is_of_today(name, one)
        }
        async with trio.open_nursery() as nursery:
            for name, server in self.servers.items():
                if server.life is not None and name not in self._known:
                    nursery.start_soon(self._ask, name, server)
        return {name: one.pid for name, one in self._known.items() if one.pid is not None}

    def of(self, name: str) -> int | None:
        """Return the last known root of a server."""
        known = self._known.get(name)
        return known.pid if known else None

    def _is_of_today(self, name: str, root: _Root) -> bool:
        server = self.servers.get(name)
        if server is None or root.life != server.life:
            return False
        return root.pid is not None or trio.current_time() < root.until

    async def _ask(self, name: str, server: Server) -> None:
        life, pid = server.life, None
        with trio.move_on_after(LONGEST_QUESTION):
            pid = await server.root()
        self._known[name] = _Root(life, pid, trio.current_time() + ASKED_AGAIN)
