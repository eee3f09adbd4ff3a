"""A place in the queue for a model, which becomes a lease; and the queue of all such places.

Owns the ``async with`` of a caller, and the order of coming. Who is let in, and who is sent away,
is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Protocol

import attrs
import trio

from supervisor.model.server import ModelServer
from supervisor.model.usage import Lease
from supervisor.scheduling.decisions import Demand
from supervisor.states.causes import AN_OPERATOR, Asker, Asking
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
    asker: Asking = AN_OPERATOR
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


@attrs.frozen(kw_only=True)
class Queued:
    """Somebody who waits.

    Attributes:
        model: that is waited for.
        asker: who waits.
        since: when that began, on Trio's clock.
        place: of the model among those that are waited for; 1 is first.
        behind: those that keep the model from its turn.
        closing: when these are closed for newcomers at the latest, on Trio's clock; infinity is
            not known.
    """

    model: str
    asker: Asker
    since: float
    place: int
    behind: tuple[str, ...]
    closing: float


def _at_once(_: Turn) -> float:
    return 0.0


@attrs.define(eq=False)
class WaitingList:
    """All who wait, for any model.

    Attributes:
        turns: in the order of their coming.
    """

    turns: list[Turn] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self.turns)

    def __iter__(self) -> Iterator[Turn]:
        return iter(tuple(self.turns))

    def __contains__(self, turn: Turn) -> bool:
        return turn in self.turns

    def add(self, turn: Turn) -> None:
        """Queue somebody, from now on."""
        turn.since, turn.answered = trio.current_time(), trio.Event()
        self.turns.append(turn)
        turn.server.usage.add_waiter()

    def remove(self, turn: Turn) -> None:
        """Let somebody wait no longer."""
        self.turns.remove(turn)
        turn.server.usage.remove_waiter()

    def take(self, models: Container[str]) -> list[Turn]:
        """Let nobody wait for these models any longer, and return who did."""
        return self.let_go([turn for turn in self.turns if turn.server.model.id in models])

    def let_go(self, taken: list[Turn]) -> list[Turn]:
        """Let these wait no longer, and return them."""
        for turn in taken:
            self.remove(turn)
        return taken

    def of(self, model: str) -> list[Turn]:
        """Return who waits for a model, in the order of their coming."""
        return [turn for turn in self.turns if turn.server.model.id == model]

    def first(self, model: str) -> Turn | None:
        """Return who has waited for a model the longest."""
        return next((turn for turn in self.turns if turn.server.model.id == model), None)

    def demands(
        self, priorities: Mapping[str, int], start_of: Callable[[Turn], float] = _at_once
    ) -> dict[str, Demand]:
        """Return what is waited for, in the order of coming.

        Args:
            priorities: by model id; 0 without.
            start_of: says when the turn of somebody begins.
        """
        found: dict[str, Demand] = {}
        for turn in self.turns:
            server = turn.server
            name = server.model.id
            start = start_of(turn)
            if name not in found:
                found[name] = Demand(
                    model=name,
                    since=turn.since,
                    count=server.usage.waiting,
                    priority=priorities.get(name, 0),
                    turn=start,
                )
            elif start < found[name].turn:
                found[name] = attrs.evolve(found[name], turn=start)
        return found
