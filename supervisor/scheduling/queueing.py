"""A place in the queue for a model, which becomes a lease; and the queue of all such places.

Owns the ``async with`` of a caller, and the order of arrival. The scheduler decides who is let in
and who is refused.
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
    """Gives leases, one after the other."""

    def join(self, turn: Turn) -> bool:
        """Queue; return whether the wait is over already. Raises an immediate refusal."""

    def leave(self, turn: Turn, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is."""


@attrs.define(eq=False)
class Turn:
    """A place in the queue, then a lease: use it as ``async with``, once.

    Entering waits until the model serves; the model goes on serving for as long as the block lasts.
    """

    _queue: Queue
    server: ModelServer
    asker: Asking = AN_OPERATOR
    since: float = attrs.field(default=0.0, init=False)
    lease: Lease | None = attrs.field(default=None, init=False)
    answered: trio.Event = attrs.field(init=False)  # set up once the turn is queued
    refusal: SupervisorError | None = attrs.field(default=None, init=False)

    async def __aenter__(self) -> ModelServer:
        """Wait for the lease.

        Raises:
            TooManyRequests: the model's limit is reached; nothing was queued.
            QueueFull: the queue is full; nothing was queued.
            Paused: no request may wait now; nothing was queued.
            BackingOff: the model keeps failing; nothing was queued.
            NoRoom: nothing can make room for the model.
            ModelFailed: the model could not start or wake.
            StillHeld: something that could not be ended may hold the model's memory.
            Unloaded, Removed: an operator stopped the model, or removed it, meanwhile.
        """
        if not self._queue.join(self):
            try:
                await self.answered.wait()
            except BaseException:  # cancelled: this turn waits no longer
                self._queue.leave(self)
                raise
        if self.refusal is not None:
            self._queue.leave(self)
            raise self.refusal
        return self.server

    async def __aexit__(self, error: object, *_: object) -> None:
        self._queue.leave(self, cut=error is not None)

    def leave(self, *, cut: bool = False) -> None:
        """Give up the place or the lease, whichever it is; `cut` means before the answer's end."""
        self._queue.leave(self, cut=cut)


@attrs.frozen(kw_only=True)
class Queued:
    """A request that waits.

    Attributes:
        model: the model that it waits for.
        asker: the caller.
        since: when the wait began, on Trio's clock.
        place: the model's place among those that are waited for; 1 is first.
        behind: the models that keep this model from its turn.
        closing: when these are closed for newcomers at the latest, on Trio's clock; infinity if
        that is not known.
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
    """All turns that wait, for any model.

    Attributes:
        turns: in the order of arrival.
    """

    turns: list[Turn] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self.turns)

    def __iter__(self) -> Iterator[Turn]:
        return iter(tuple(self.turns))

    def __contains__(self, turn: Turn) -> bool:
        return turn in self.turns

    def add(self, turn: Turn) -> None:
        """Queue a turn, from now on."""
        turn.since, turn.answered = trio.current_time(), trio.Event()
        self.turns.append(turn)
        turn.server.usage.add_waiter()

    def remove(self, turn: Turn) -> None:
        """Take a turn out of the queue."""
        self.turns.remove(turn)
        turn.server.usage.remove_waiter()

    def take(self, models: Container[str]) -> list[Turn]:
        """Take all turns for these models out of the queue, and return them."""
        return self.let_go([turn for turn in self.turns if turn.server.model.id in models])

    def let_go(self, taken: list[Turn]) -> list[Turn]:
        """Take these turns out of the queue, and return them."""
        for turn in taken:
            self.remove(turn)
        return taken

    def of(self, model: str) -> list[Turn]:
        """Return the turns for a model, in the order of arrival."""
        return [turn for turn in self.turns if turn.server.model.id == model]

    def first(self, model: str) -> Turn | None:
        """Return the turn that has waited for a model the longest."""
        return next((turn for turn in self.turns if turn.server.model.id == model), None)

    def demands(
        self, priorities: Mapping[str, int], start_of: Callable[[Turn], float] = _at_once
    ) -> dict[str, Demand]:
        """Return what is waited for, in the order of arrival.

        Args:
            priorities: by model id; 0 if a model is missing.
            start_of: says when a turn begins on the account of API keys.
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
