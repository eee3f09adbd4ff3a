"""Who must make room for whom, as a pure function of the configuration: groups, or a matrix.

Owns these rules, whose results are llama-swap's, and the form in which a decision asks any rule.
The answers of what memory there is are in `bymemory`. Whether room is made by sleeping or by
stopping, and when, is decided elsewhere.
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
"""Of the models that run, those that must leave before the wanted one may come up."""
REMEMBERED = 4096  # answers; the same few questions are asked over and over
MOST_WRITTEN_OUT = 200_000  # alternatives; of more, each question makes its own


def one_at_a_time(wanted: str, running: frozenset[str]) -> frozenset[str]:
    """Let no model run beside another."""
    return running - {wanted}


def placement_of(config: Config) -> MakeRoom:
    """Return the rules of a configuration; without any, one model runs at a time."""
    return placement_for(rules_of(config))


def placement_for(rules: Rules) -> MakeRoom:
    """Return what some rules come down to, be they in effect or not."""
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


# What a decision asks, and how a fixed rule answers it.


@attrs.frozen(kw_only=True)
class Plan:
    """What a decision has come to when the next one who waits has a turn.

    Attributes:
        running: who will run when all claims are fulfilled.
        called: who is called already, and has not come up yet.
        claimed: whose turn has come.
    """

    running: frozenset[str]
    called: frozenset[str]
    claimed: frozenset[str]


class Rivals(Protocol):
    """Says who must leave for whom, for one decision."""

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return who must leave for a model; None if it cannot have its turn now, whoever leaves.

        What was answered for a model holds for it until it is asked again.
        """

    def claim(self, name: str) -> None:
        """Take note that the room that `of` has found is given to this model."""

    def must_end(self, name: str, rival: str) -> bool:
        """Whether a rival must end for a model, as its sleep would not make the room."""

    def must_move(self, name: str, plan: Plan) -> bool:
        """Whether a model that sleeps cannot wake where it is, and could start elsewhere."""

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether somebody who holds memory yet must have left before a model comes up."""

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return the GPUs that a model is to come up on; nothing where that is not chosen."""


@attrs.frozen
class ByRule(Rivals):
    """A fixed rule.

    Attributes:
        make_room: of the models that run, those that must leave for another.
        models: how all of them stand.
    """

    make_room: MakeRoom
    models: Mapping[str, Snapshot]

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return whom the rule names, and who is called already and would make it leave."""
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
        """Return whom the rule names; of a matrix's sets one with all that are pinned, if any."""
        found = self.make_room(name, running)
        staying = {one for one in running if self.models[one].pin}
        if staying.isdisjoint(found) or self.make_room(name, frozenset(staying)):
            return found
        for other in sorted(running - staying, key=lambda one: (one in found, one)):
            if not self.make_room(name, frozenset({*staying, other})):
                staying.add(other)
        return running - staying

    def _disturbs_a_claim(self, name: str, plan: Plan) -> bool:
        """Whether somebody whose turn it is would make this model leave."""
        together = plan.running | {name}
        return any(name in self.make_room(claim, together - {claim}) for claim in plan.claimed)

    def claim(self, name: str) -> None:
        """Need no note: a rule says the same again."""

    def must_end(self, name: str, rival: str) -> bool:
        """Let all sleep that can."""
        return False

    def must_move(self, name: str, plan: Plan) -> bool:
        """Know no places."""
        return False

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether the rule names one of them."""
        return bool(self.make_room(name, holding - {name}))

    def gpus(self, name: str) -> tuple[str, ...]:
        """Choose none."""
        return ()
