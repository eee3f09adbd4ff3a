"""Waiting for a model server to reach a state, however briefly it stays there.

Owns the list of who waits. The state itself belongs to the model server.
"""

from __future__ import annotations

import attrs
import trio

from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State


@attrs.define(eq=False)
class _Watcher:
    """Somebody waits for one of these states; `seen` is how the server stood in it."""

    states: frozenset[State]
    reached: trio.Event = attrs.field(factory=trio.Event)
    seen: Snapshot | None = None


@attrs.define(eq=False)
class Watchers:
    """All who wait for a state of one model server."""

    _waiting: list[_Watcher] = attrs.field(factory=list, init=False)

    def tell(self, snapshot: Snapshot) -> None:
        """Let those go on who wait for this state; the first they see is what they return."""
        for watcher in self._waiting:
            if snapshot.state in watcher.states and watcher.seen is None:
                watcher.seen = snapshot
                watcher.reached.set()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Return how the server stood in one of these states, even if it has moved on."""
        watcher = _Watcher(states)
        self._waiting.append(watcher)
        try:
            await watcher.reached.wait()
        finally:
            self._waiting.remove(watcher)
        assert watcher.seen is not None  # noqa: S101 -- set before `reached` is
        return watcher.seen
