"""Waiting for a model server to reach a state, however briefly it stays there.

Owns the list of those who wait. The state itself belongs to the model server.
"""

from __future__ import annotations

import attrs
import trio

from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State


@attrs.define(eq=False)
class _Watcher:
    """A task that waits for one of these states; `seen` is the snapshot taken in it."""

    states: frozenset[State]
    reached: trio.Event = attrs.field(factory=trio.Event)
    seen: Snapshot | None = None


@attrs.define(eq=False)
class Watchers:
    """All tasks that wait for a state of one model server."""

    _waiting: list[_Watcher] = attrs.field(factory=list, init=False)

    def tell(self, snapshot: Snapshot) -> None:
        """Wake the tasks that wait for this state; each returns the first snapshot it sees."""
        for watcher in self._waiting:
            if snapshot.state in watcher.states and watcher.seen is None:
                watcher.seen = snapshot
                watcher.reached.set()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Return the snapshot taken in one of these states, even if the server moved on."""
        watcher = _Watcher(states)
        self._waiting.append(watcher)
        try:
            await watcher.reached.wait()
        finally:
            self._waiting.remove(watcher)
        assert watcher.seen is not None  # noqa: S101 -- set before `reached` is
        return watcher.seen
