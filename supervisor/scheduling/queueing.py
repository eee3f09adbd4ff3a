"""A place in the queue for a model, which becomes a lease.

Owns the ``async with`` of a caller. Who is let in, and who is sent away, is the scheduler's.
"""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from supervisor.model.server import ModelServer
from supervisor.model.usage import Lease
from supervisor.states.refusals import SupervisorError


class Queue(Protocol):
    """Who gives leases, one after the other."""

    def join(self, turn: Turn) -> bool:
        """Queue; return whether that is over already. Raises what refuses at once."""

    def leave(self, turn: Turn, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is."""


@attrs.define(eq=False)
class Turn:
    """A place in the queue, then a lease: use it as ``async with``, once.

    Entering waits until the model serves; it goes on serving for as long as the block lasts.
    """

    _queue: Queue
    server: ModelServer
    since: float = attrs.field(default=0.0, init=False)
    lease: Lease | None = attrs.field(default=None, init=False)
    answered: trio.Event = attrs.field(init=False)  # there once it is queued
    refusal: SupervisorError | None = attrs.field(default=None, init=False)

    async def __aenter__(self) -> ModelServer:
        """Wait for the lease.

        Raises:
            TooManyRequests: the model's limit is reached; nothing was queued.
            QueueFull: as many wait as may; nothing was queued.
            Paused: nobody may wait now; nothing was queued.
            BackingOff: it fails again and again; nothing was queued.
            NoRoom: nothing can make room for it.
            ModelFailed: it could not be brought up.
            StillHeld: what could not be ended may hold its memory.
            Unloaded, Removed: an operator stopped it, or took it away, meanwhile.
        """
        if not self._queue.join(self):
            try:
                await self.answered.wait()
            except BaseException:  # cancelled: nobody waits here any more
                self._queue.leave(self)
                raise
        if self.refusal is not None:
            self._queue.leave(self)
            raise self.refusal
        return self.server

    async def __aexit__(self, error: object, *_: object) -> None:
        self._queue.leave(self, cut=error is not None)

    def leave(self, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is; `cut` is before the answer's end."""
        self._queue.leave(self, cut=cut)
