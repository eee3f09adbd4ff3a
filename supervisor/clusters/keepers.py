"""All clusters of a configuration, with one keeper for all: Slurm is one, however it is divided.

Owns whether there is a keeper's round at all, and gives back what is held at the end.
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
        keeper: the keeper of all allocations.
        nursery: runs the rounds, once there is something to hold or to find.
    """

    keeper: Keeper
    nursery: trio.Nursery
    _rounds: Rounds | None = attrs.field(default=None, init=False)

    def change(self, config: Config, *, may_be_left: bool = False) -> None:
        """Apply another configuration.

        Args:
            config: the configuration that is in effect now.
            may_be_left: whether an earlier daemon may have left something, whatever the
            configuration says.
        """
        holdings = [one.holding for one in config.models.values() if one.holding]
        if (holdings or may_be_left) and self._rounds is None:
            self._rounds = Rounds(self.keeper)
            self.nursery.start_soon(kept_up, self._rounds.run)
        self.keeper.change(holdings)

    def expect(self, holding: Holding, model: str, job: str, token: str) -> None:
        """Give a step of an earlier daemon an owner, before the first look for orphaned steps."""
        self.keeper.tokens.add(token)
        self.keeper.claim(holding).users[model] = job

    async def close(self) -> None:
        """Give back all jobs."""
        if self._rounds is not None:
            await self._rounds.close()


@asynccontextmanager
async def open_clusters(owner: str) -> AsyncIterator[Clusters]:
    """Have a keeper for as long as the block lasts; leaving it gives back all jobs."""
    async with trio.open_nursery() as nursery:
        clusters = Clusters(Keeper(owner), nursery)
        try:
            yield clusters
        finally:
            nursery.cancel_scope.cancel()
            # Shielded: otherwise jobs would be held for ever. The rounds bound this.
            with trio.CancelScope(shield=True):
                await clusters.close()
