"""Models that never meet, as they run on different machines: who makes room for whom among each.

Owns the division by allocations of clusters, with this machine as one more of them. What holds
within one is the same rule as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import attrs

from configschema import Config
from supervisor.scheduling.placement import REMEMBERED, MakeRoom, Plan, Rivals, placement_of

Homes = Mapping[str, str]
"""The allocation of each model that runs in one; all others run here."""


def homes_of(config: Config) -> Homes:
    """Return in which allocations models run."""
    return {name: model.allocation for name, model in config.models.items() if model.holding}


def rule_of(config: Config) -> MakeRoom:
    """Return the rules of a configuration, which hold among those that can meet."""
    rule, homes = placement_of(config), homes_of(config)
    if not homes:
        return rule

    def make_room(wanted: str, running: frozenset[str]) -> frozenset[str]:
        return rule(wanted, near(wanted, running, homes))

    return lru_cache(REMEMBERED)(make_room)


def near(name: str, others: frozenset[str], homes: Homes) -> frozenset[str]:
    """Return those that a model can meet."""
    home = homes.get(name, "")
    return frozenset(other for other in others if homes.get(other, "") == home)


@attrs.define(eq=False)
class Apart(Rivals):
    """Rivals of several machines.

    Attributes:
        homes: where models run.
        make: returns who decides among those of one home.
    """

    homes: Homes
    make: Callable[[str], Rivals]
    _made: dict[str, Rivals] = attrs.field(factory=dict, init=False)

    def at(self, name: str) -> Rivals:
        """Return who decides where a model runs."""
        home = self.homes.get(name, "")
        if home not in self._made:
            self._made[home] = self.make(home)
        return self._made[home]

    def _plan(self, name: str, plan: Plan) -> Plan:
        return Plan(
            running=near(name, plan.running, self.homes),
            called=near(name, plan.called, self.homes),
            claimed=near(name, plan.claimed, self.homes),
        )

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return who must leave there."""
        return self.at(name).of(name, self._plan(name, plan))

    def claim(self, name: str) -> None:
        """Take note there."""
        self.at(name).claim(name)

    def must_end(self, name: str, rival: str) -> bool:
        """Whether a rival must end there."""
        return self.at(name).must_end(name, rival)

    def must_move(self, name: str, plan: Plan) -> bool:
        """Whether it could start elsewhere there."""
        return self.at(name).must_move(name, self._plan(name, plan))

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether somebody holds memory there."""
        return self.at(name).is_in_the_way(name, near(name, holding, self.homes))

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return the GPUs there."""
        return self.at(name).gpus(name)
