"""The process of each model server whose descendants hold its memory.

Owns when that is asked: once for each server, as an engine of containers may take its time. Which
process it is, is the server's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
import trio

LONGEST_QUESTION = 2.0  # seconds; an engine is asked for a container's process
ASKED_AGAIN = 10.0  # seconds until it is asked again where it does not know


class Server(Protocol):
    """A model server, as far as it matters here."""

    @property
    def life(self) -> object:
        """What stands for its present process, and for where that serves; None without one."""

    async def root(self) -> int | None:
        """Return the process whose descendants hold its memory, if it is seen."""


@attrs.frozen
class _Root:
    life: object
    pid: int | None
    until: float  # when to ask again where there is none, on Trio's clock


@attrs.define(eq=False)
class Roots:
    """The roots of all model servers.

    Attributes:
        servers: by the id of their model.
    """

    servers: Mapping[str, Server]
    _known: dict[str, _Root] = attrs.field(factory=dict, init=False)

    async def now(self) -> dict[str, int]:
        """Return the roots that can be seen of the servers that run."""
        self._known = {
            name: one for name, one in self._known.items() if self._is_of_today(name, one)
        }
        async with trio.open_nursery() as nursery:
            for name, server in self.servers.items():
                if server.life is not None and name not in self._known:
                    nursery.start_soon(self._ask, name, server)
        return {name: one.pid for name, one in self._known.items() if one.pid is not None}

    def of(self, name: str) -> int | None:
        """Return the root that was found last of a server."""
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
