"""The state of all models when something is decided, and the rules of the decision.

Owns which parts of a configuration affect decisions, the choice between fixed rules and memory, and
what a decision is given of either. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs
import trio

from configschema import Config, MemoryRules, rules_of
from supervisor.model.server import ModelServer
from supervisor.scheduling.apart import Apart, Homes, Rooms, homes_of, near, rule_among
from supervisor.scheduling.blocked import Blocked, blocked_by_memory, blocked_by_rule
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import ByRule, MakeRoom, Rivals, one_at_a_time, placement_of
from supervisor.scheduling.shares import weights_of
from supervisor.states.snapshot import Costs, Snapshot, usual_costs
from supervisor.states.table import ENDED, IN_MOTION, State, Wish

ONE_AT_A_TIME = "one at a time"


@attrs.frozen(kw_only=True)
class Rules:
    """The operator's rules about who goes when.

    Attributes:
        make_room: says who must make room for whom, unless memory decides that.
        rule: the same, for models that run in one place.
        patience: how long requests wait for others.
        priorities: by model id; 0 if a model is missing.
        max_queue: requests that may wait, for all models together; 0 is no limit.
        memory: what models may use, if memory decides who must make room for whom.
        word: the name of what decides who must make room for whom.
        shares: shares of turns, by the name of an API key; empty if no key has a name.
        homes: the allocation of each model that runs in a cluster.
    """

    make_room: MakeRoom
    patience: Patience = attrs.field(factory=Patience)
    priorities: Mapping[str, int] = attrs.field(factory=dict)
    max_queue: int = 0
    memory: MemoryRules | None = None
    word: str = ONE_AT_A_TIME
    shares: Mapping[str, int] = attrs.field(factory=dict)
    homes: Homes = attrs.field(factory=dict)
    rule: MakeRoom = one_at_a_time

    def as_they_run(self, servers: Mapping[str, ModelServer], names: Iterable[str]) -> Rules:
        """Return the rules with models where their servers are: a reload may have moved them."""
        running = [servers[name] for name in names if servers[name].at.state not in ENDED]
        found = {server.model.id: server.model.allocation for server in running}
        moved = {name: at for name, at in found.items() if at != self.homes.get(name, "")}
        if not moved:
            return self
        homes = {**self.homes, **moved}
        return attrs.evolve(self, homes=homes, make_room=rule_among(self.rule, homes))


def rules_for(config: Config) -> Rules:
    """Return the rules of a configuration."""
    priorities = config.routing.scheduler.settings.fifo.priority
    found = [(config.find(name), priority) for name, priority in priorities.items()]
    rule, homes = placement_of(config), homes_of(config)
    return Rules(
        make_room=rule_among(rule, homes),
        rule=rule,
        homes=homes,
        patience=Patience(max_wait=config.max_wait, min_active=config.min_active),
        priorities={model.id: priority for model, priority in found if model},
        max_queue=config.max_queue,
        memory=rules_of(config).memory,
        word=word_for(config),
        shares=weights_of(config),
    )


def word_for(config: Config) -> str:
    """Return the name of what decides which models run together."""
    rules = rules_of(config)
    if rules.memory:
        return "memory"
    return "matrix" if rules.matrix else "groups" if rules.groups else ONE_AT_A_TIME


@attrs.frozen
class Outlook:
    """All models at one moment.

    Attributes:
        models: the models that are wanted, run, or hold memory that matters.
        rivals: says who must make room for whom.
        usual: the usual costs of steps, for steps that were never measured of a model.
        rules: the operator's rules.
    """

    models: Mapping[str, Snapshot]
    rivals: Rivals
    usual: Costs
    rules: Rules

    @classmethod
    def of(
        cls,
        servers: Mapping[str, ModelServer],
        wanted: Collection[str],
        rules: Rules,
        rooms: Rooms,
    ) -> Outlook:
        """Take the models' snapshots; unwanted models at rest matter only for what sleep leaves."""
        by_memory, now = rules.memory is not None, trio.current_time()
        models = {
            name: server.snapshot()
            for name, server in servers.items()
            if name in wanted
            or not server.is_at_rest
            or (by_memory and server.at.state is State.ASLEEP)
        }
        usual = usual_costs(server.at.costs for server in servers.values())
        rules = rules.as_they_run(servers, models)
        by_rule = ByRule(rules.make_room, models)
        if not by_memory:
            return cls(models, by_rule, usual, rules)

        def of_home(home: str) -> ByMemory:
            near = {name: one for name, one in models.items() if rules.homes.get(name, "") == home}
            space = rooms.there[home].space if home in rooms.there else rooms.here.space
            return ByMemory(near, space, now, rules.patience.max_wait, usual)

        rivals = Apart(rules.homes, of_home) if rules.homes else of_home("")
        return cls(models, rivals, usual, rules)

    @property
    def make_room(self) -> MakeRoom:
        """Who must make room for whom, as a function of which models run."""

        def make_room(wanted: str, running: frozenset[str]) -> frozenset[str]:
            room = self._room_of(wanted)
            if room is None:
                return self.rules.make_room(wanted, running)
            seat = room.seat(wanted, near(wanted, running - {wanted}, self.rules.homes))
            return seat.eviction.all if seat else frozenset()

        return self.rules.make_room if self.rules.memory is None else make_room

    def _room_of(self, name: str) -> ByMemory | None:
        """Return the memory for a model, if memory decides who makes room for it."""
        rivals = self.rivals.at(name) if isinstance(self.rivals, Apart) else self.rivals
        return rivals if isinstance(rivals, ByMemory) else None

    def blocked(self, name: str) -> Blocked | None:
        """Return why nothing can make room for a model, if that is so."""
        model = self.models[name]
        if model.serving or (model.state in IN_MOTION and model.wish is Wish.SERVE):
            return None  # it has its room
        if room := self._room_of(name):
            return blocked_by_memory(name, room)
        pinned = any(model.pin for model in self.models.values())
        now = trio.current_time()
        return blocked_by_rule(name, self.models, self.rules.make_room, now) if pinned else None
