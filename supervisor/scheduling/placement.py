"""Who must make room for whom, as a pure function of the configuration: groups, or a matrix.

The results are llama-swap's. Whether room is made by sleeping or by stopping, and when, is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import attrs

from configschema import DEFAULT_GROUP, Config, Group, Matrix, Sets, rules_of, sets_of

MakeRoom = Callable[[str, frozenset[str]], frozenset[str]]
"""Of the models that run, those that must leave before the wanted one may come up."""
REMEMBERED = 4096  # answers; the same few questions are asked over and over
MOST_WRITTEN_OUT = 200_000  # alternatives; of more, each question makes its own


def one_at_a_time(wanted: str, running: frozenset[str]) -> frozenset[str]:
    """Let no model run beside another."""
    return running - {wanted}


def placement_of(config: Config) -> MakeRoom:
    """Return the rules of a configuration; without any, one model runs at a time."""
    rules = rules_of(config)
    sets = sets_of(rules.matrix) if rules.matrix else None
    if rules.matrix and sets:
        rule: MakeRoom = _ByMatrix.of(sets, rules.matrix).leaving
    elif groups := {name: group for name, group in rules.groups.items() if name != DEFAULT_GROUP}:
        homes = {member: group for group in groups.values() for member in group.members}
        rule = _ByGroups(homes, Group()).leaving
    else:
        return one_at_a_time
    return lru_cache(REMEMBERED)(rule)


@attrs.frozen
class _ByGroups:
    """The groups: `homes` is the group of each model that is in one."""

    homes: Mapping[str, Group]
    others: Group  # all models in no group are together in this one

    def leaving(self, wanted: str, running: frozenset[str]) -> frozenset[str]:
        """Return members of its own group that cannot stay, and those of others, if exclusive.

        A group that is not exclusive stops no other, not even an exclusive one: as in llama-swap,
        two such groups can meet in one order and not in the other.
        """
        home = self.homes.get(wanted, self.others)
        return frozenset(
            other
            for other in running
            if other != wanted and self._must_leave(self.homes.get(other, self.others), home)
        )

    def _must_leave(self, its_home: Group, home: Group) -> bool:
        if its_home is home:
            return home.swap
        return home.exclusive and not its_home.persistent


@attrs.frozen
class _ByMatrix:
    """The sets of a matrix.

    Attributes:
        sets: what may run together.
        costs: what it costs to make a model leave; 1 without.
        models: all models that are in a set.
        table: for each of them the alternatives that hold it, as bit masks over `models`; None
            if there are too many of them to write out.
    """

    sets: Sets
    costs: Mapping[str, int]
    models: tuple[str, ...]
    table: Mapping[str, list[int]] | None

    @classmethod
    def of(cls, sets: Sets, matrix: Matrix) -> _ByMatrix:
        """Prepare the sets of a matrix for many questions."""
        costs = {matrix.vars.get(name, name): cost for name, cost in matrix.evict_costs.items()}
        models = tuple(sets.members())
        masks = sets.written_out(models, MOST_WRITTEN_OUT)
        table = masks and {
            name: [mask for mask in masks if mask & 1 << place] for place, name in enumerate(models)
        }
        return cls(sets, costs, models, table or None)

    def leaving(self, wanted: str, running: frozenset[str]) -> frozenset[str]:
        """Return those outside of the set that holds the wanted model and costs least to reach.

        Of sets that cost the same the first counts. A model in no set runs alone.
        """
        others = running - {wanted}
        outside = self._outside_of_each(wanted, others)
        return min(outside, key=self._cost, default=others)

    def _outside_of_each(self, wanted: str, others: frozenset[str]) -> list[frozenset[str]]:
        """Return who is outside of each alternative with the wanted model, each case once."""
        if self.table is None:
            relevant = (wanted, *sorted(others))
            found = (mask for _, masks in self.sets.alternatives(relevant) for mask in masks)
            masks = [mask for mask in found if mask & 1]
        else:
            relevant = self.models
            masks = self.table.get(wanted, [])
        bits = {name: 1 << place for place, name in enumerate(relevant) if name in others}
        unknown = others - bits.keys()  # in no set at all
        running = sum(bits.values())
        cases = dict.fromkeys([running & ~mask for mask in masks])
        return [unknown.union(name for name, bit in bits.items() if case & bit) for case in cases]

    def _cost(self, leaving: frozenset[str]) -> int:
        return sum(self.costs.get(name, 1) for name in leaving)
