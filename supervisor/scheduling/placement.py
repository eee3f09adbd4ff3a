"""Who must make room for whom, as a pure function of the configuration: groups, or a matrix.

Owns these rules, whose results are llama-swap's, and the form in which a decision asks any rule.
`bymemory` answers by memory. Whether a model makes room by sleeping or by stopping, and when, is
decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

import attrs

from configschema import DEFAULT_GROUP, Config, Group, Matrix, Sets, rules_of, sets_of
from configschema.rules.routing import Rules
from supervisor.states.snapshot import Snapshot

MakeRoom = Callable[[str, frozenset[str]], frozenset[str]]
"""Returns those of the running models that must leave before the wanted one starts or wakes."""
REMEMBERED = 4096  # answers; the same few questions are asked again and again
MOST_WRITTEN_OUT = 200_000  # alternatives; if there are more, each question makes its own


def one_at_a_time(wanted: str, running: frozenset[str]) -> frozenset[str]:
    """Let no model run beside another."""
    return running - {wanted}


def placement_of(config: Config) -> MakeRoom:
    """Return the rules of a configuration; without any, one model runs at a time."""
    return placement_for(rules_of(config))


def placement_for(rules: Rules) -> MakeRoom:
    """Return the function that these rules define, whether they are in effect or not."""
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
    """The groups: `homes` is the group of each model that is in a group."""

    homes: Mapping[str, Group]
    others: Group  # the group of all models that are in no other group

    def leaving(self, wanted: str, running: frozenset[str]) -> frozenset[str]:
        """Return members of its own group that cannot stay, and those of others, if exclusive.

        A group that is not exclusive stops no other group, not even an exclusive one. As in
        llama-swap, two such groups can run together in one order of requests and not in the other.
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
        costs: what it costs to make a model leave; 1 if a model is missing.
        models: all models that are in a set.
        table: for each model the alternatives that contain it, as bit masks over `models`; None if
        there are too many to write out.
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
        """Return the models outside the set with the wanted model that costs least to reach.

        If several sets cost the same, the first counts. A model in no set runs alone.
        """
        others = running - {wanted}
        outside = self._outside_of_each(wanted, others)
        return min(outside, key=self._cost, default=others)

    def _outside_of_each(self, wanted: str, others: frozenset[str]) -> list[frozenset[str]]:
        """Return the models outside each alternative with the wanted model, each case once."""
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


# What a decision asks, and how a fixed rule answers.


@attrs.frozen(kw_only=True)
class Plan:
    """What a decision has so far when the next demand has its turn.

    Attributes:
        running: the models that will run when all claims are fulfilled.
        called: the models that are called already, and are not ready yet.
        claimed: the models whose turn has come.
    """

    running: frozenset[str]
    called: frozenset[str]
    claimed: frozenset[str]


class Rivals(Protocol):
    """Says who must make room for whom, for one decision."""

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return who must leave for a model; None if it cannot have its turn now, whoever leaves.

        The answer for a model is valid until the next question about it.
        """

    def claim(self, name: str) -> None:
        """Take note that the room found by `of` is given to this model."""

    def must_end(self, name: str, rival: str) -> bool:
        """Whether a rival must end for a model, as its sleep would not make the room."""

    def must_move(self, name: str, plan: Plan) -> bool:
        """Whether a sleeping model cannot wake where it is, and could start elsewhere."""

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether a model that still holds memory must leave before this model starts or wakes."""

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return the GPUs that a model is to use; empty if these are not chosen."""


@attrs.frozen
class ByRule(Rivals):
    """A fixed rule.

    Attributes:
        make_room: returns, of the models that run, those that must leave for another.
        models: all models.
    """

    make_room: MakeRoom
    models: Mapping[str, Snapshot]

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return the models that the rule names, and called models that would make it leave."""
        callers = (
            other
            for other in plan.called - {name}
            if name in self.make_room(other, frozenset({name}))
        )
        rivals = self._leaving(name, plan.running - {name}).union(callers)
        if rivals & plan.claimed or self._disturbs_a_claim(name, plan):
            return None
        return None if any(self.models[rival].pin for rival in rivals) else rivals

    def _leaving(self, name: str, running: frozenset[str]) -> frozenset[str]:
        """Return the models that the rule names; in a matrix, prefer a set with all pinned ones."""
        found = self.make_room(name, running)
        staying = {one for one in running if self.models[one].pin}
        if staying.isdisjoint(found) or self.make_room(name, frozenset(staying)):
            return found
        for other in sorted(running - staying, key=lambda one: (one in found, one)):
            if not self.make_room(name, frozenset({*staying, other})):
                staying.add(other)
        return running - staying

    def _disturbs_a_claim(self, name: str, plan: Plan) -> bool:
        """Whether a model whose turn has come would make this model leave."""
        together = plan.running | {name}
        return any(name in self.make_room(claim, together - {claim}) for claim in plan.claimed)

    def claim(self, name: str) -> None:
        """Do nothing: a rule gives the same answer again."""

    def must_end(self, name: str, rival: str) -> bool:
        """Return False: every model that can sleep may sleep."""
        return False

    def must_move(self, name: str, plan: Plan) -> bool:
        """Return False: a rule knows no places."""
        return False

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether the rule names one of them."""
        return bool(self.make_room(name, holding - {name}))

    def gpus(self, name: str) -> tuple[str, ...]:
        """Choose none."""
        return ()
