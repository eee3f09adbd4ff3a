"""All clusters of a configuration: one keeper for each, for as long as models may run there.

Owns how keepers come and go with the configuration, and that what is held is given back at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from configschema import Config, Holding
from supervisor.clusters.keeper import Keeper
from supervisor.clusters.rounds import Rounds
from supervisor.states.racing import kept_up


@attrs.define(eq=False)
class Clusters:
    """The keepers.

    Attributes:
        owner: what marks all that this daemon asks for.
        nursery: they run in it.
        keepers: by the names of their clusters.
        rounds: that are made of them.
        on_leave: called with a model's id and the reason when its server must leave its job.
    """

    owner: str
    nursery: trio.Nursery
    keepers: dict[str, Keeper] = attrs.field(factory=dict, init=False)
    rounds: list[Rounds] = attrs.field(factory=list, init=False)
    on_leave: Callable[[str, str], None] = attrs.field(default=lambda _, __: None, init=False)

    def change(self, config: Config) -> None:
        """Heed another configuration; a cluster that is gone lets go of what it holds."""
        holdings = [one.holding for one in config.models.values() if one.holding]
        for name in {one.cluster for one in holdings} - self.keepers.keys():
            keeper = self.keepers[name] = Keeper(name, self.owner, self._leave)
            self.rounds.append(Rounds(keeper))
            self.nursery.start_soon(kept_up, self.rounds[-1].run)
        for name, keeper in self.keepers.items():
            keeper.change(one for one in holdings if one.cluster == name)

    def expect(self, holding: Holding, model: str, job: str, token: str) -> None:
        """Let a step of an earlier daemon have an owner, before anybody looks for such without."""
        keeper = self.keepers[holding.cluster]
        keeper.tokens.add(token)
        keeper.claim(holding).users[model] = job

    def _leave(self, model: str, why: str) -> None:
        self.on_leave(model, why)


@asynccontextmanager
async def open_clusters(owner: str) -> AsyncIterator[Clusters]:
    """Have keepers for as long as the block lasts; leaving it gives back what they hold."""
    async with trio.open_nursery() as nursery:
        clusters = Clusters(owner, nursery)
        try:
            yield clusters
        finally:
            nursery.cancel_scope.cancel()
            # Shielded: what is held would stay so for ever. Bounded by the keepers.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as closing:
                    for rounds in clusters.rounds:
                        closing.start_soon(rounds.close)
