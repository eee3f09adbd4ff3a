"""All clusters of a configuration, as their one keeper has them: Slurm is one, however it is cut.

Owns when there is a keeper at all, and that what is held is given back at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from configschema import Config, Holding
from supervisor.clusters.keeper import Keeper
from supervisor.clusters.rounds import Rounds
from supervisor.states.racing import kept_up


@attrs.define(eq=False)
class Clusters:
    """The keeper and its rounds.

    Attributes:
        keeper: of all that is held.
        nursery: the rounds run in it, once there is something to hold, or to be found.
    """

    keeper: Keeper
    nursery: trio.Nursery
    _rounds: Rounds | None = attrs.field(default=None, init=False)

    def change(self, config: Config, *, may_be_left: bool = False) -> None:
        """Heed another configuration.

        Args:
            config: that is in effect now.
            may_be_left: whether an earlier daemon may have left something, whatever that says.
        """
        holdings = [one.holding for one in config.models.values() if one.holding]
        if (holdings or may_be_left) and self._rounds is None:
            self._rounds = Rounds(self.keeper)
            self.nursery.start_soon(kept_up, self._rounds.run)
        self.keeper.change(holdings)

    def expect(self, holding: Holding, model: str, job: str, token: str) -> None:
        """Let a step of an earlier daemon have an owner, before anybody looks for such without."""
        self.keeper.tokens.add(token)
        self.keeper.claim(holding).users[model] = job

    async def close(self) -> None:
        """Give back what is held."""
        if self._rounds is not None:
            await self._rounds.close()


@asynccontextmanager
async def open_clusters(owner: str) -> AsyncIterator[Clusters]:
    """Have a keeper for as long as the block lasts; leaving it gives back what is held."""
    async with trio.open_nursery() as nursery:
        clusters = Clusters(Keeper(owner), nursery)
        try:
            yield clusters
        finally:
            nursery.cancel_scope.cancel()
            # Shielded: what is held would stay so for ever. Bounded by the rounds.
            with trio.CancelScope(shield=True):
                await clusters.close()
