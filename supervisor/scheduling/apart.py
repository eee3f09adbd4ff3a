"""Models that never meet, as they run on different machines: the rules and memory of each machine.

Owns the division by allocations of clusters, with this machine as one more of them. Within one of
them, everything works as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

import attrs
import trio

from configschema import Config, Holding, MemoryRules, rules_of
from configschema.keys.fields import Gibibytes
from supervisor.clusters.surveying import SurveyThere
from supervisor.model.server import ModelServer
from supervisor.scheduling.placement import REMEMBERED, MakeRoom, Plan, Rivals
from supervisor.scheduling.roomkeeper import GIB, RoomKeeper
from supervisor.states.racing import kept_up

Homes = Mapping[str, str]
"""The allocation of each model that runs in one; all others run here."""


def homes_of(config: Config) -> Homes:
    """Return which models run in which allocations."""
    return {name: model.allocation for name, model in config.models.items() if model.holding}


def rule_among(rule: MakeRoom, homes: Homes) -> MakeRoom:
    """Return a rule that applies only among the models of one home."""
    if not homes:
        return rule

    def make_room(wanted: str, running: frozenset[str]) -> frozenset[str]:
        return rule(wanted, near(wanted, running, homes))

    return lru_cache(REMEMBERED)(make_room)


def near(name: str, others: frozenset[str], homes: Homes) -> frozenset[str]:
    """Return the models that a model can meet."""
    home = homes.get(name, "")
    return frozenset(other for other in others if homes.get(other, "") == home)


@attrs.define(eq=False)
class Apart(Rivals):
    """Rivals on several machines.

    Attributes:
        homes: where models run.
        make: returns the rivals of one home, which decide there.
    """

    homes: Homes
    make: Callable[[str], Rivals]
    _made: dict[str, Rivals] = attrs.field(factory=dict, init=False)

    def at(self, name: str) -> Rivals:
        """Return the rivals of a model's home, which decide there."""
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
        """Return which models must make room in its home."""
        return self.at(name).of(name, self._plan(name, plan))

    def claim(self, name: str) -> None:
        """Take note of the claim in its home."""
        self.at(name).claim(name)

    def must_end(self, name: str, rival: str) -> bool:
        """Whether a rival in its home must end."""
        return self.at(name).must_end(name, rival)

    def must_move(self, name: str, plan: Plan) -> bool:
        """Whether it must start elsewhere in its home."""
        return self.at(name).must_move(name, self._plan(name, plan))

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether a model in its home is in the way."""
        return self.at(name).is_in_the_way(name, near(name, holding, self.homes))

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return its GPUs in its home."""
        return self.at(name).gpus(name)


@attrs.define(eq=False)
class Housemates(Mapping[str, ModelServer]):
    """The model servers of one home, as they come and go.

    Attributes:
        servers: all model servers, by the ids of their models.
        home: the allocation; empty for this machine.
    """

    servers: Mapping[str, ModelServer]
    home: str

    def _is_one(self, server: ModelServer) -> bool:
        return server.model.allocation == self.home

    def __getitem__(self, name: str) -> ModelServer:
        server = self.servers[name]
        if not self._is_one(server):
            raise KeyError(name)
        return server

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, one in self.servers.items() if self._is_one(one)])

    def __len__(self) -> int:
        return sum(map(self._is_one, self.servers.values()))


@attrs.define(eq=False)
class Rooms:
    """The memory of this machine, and of each allocation.

    Attributes:
        servers: all model servers by id.
        config: the configuration in effect.
        here: the keeper of this machine's memory.
        there: the keepers of the configured allocations, by their names.
        on_look: called after each look at any of them.
    """

    servers: Mapping[str, ModelServer]
    config: Config
    here: RoomKeeper = attrs.field(init=False)
    there: dict[str, RoomKeeper] = attrs.field(factory=dict, init=False)
    on_look: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)

    @here.default
    def _this_machine(self) -> RoomKeeper:
        rules = rules_of(self.config).memory
        return RoomKeeper(Housemates(self.servers, ""), rules, self._looked)

    def __attrs_post_init__(self) -> None:
        self._change_there()

    def _looked(self) -> None:
        self.on_look()

    def change(self, config: Config) -> None:
        """Apply what another configuration says of memory."""
        self.config = config
        self.here.change(rules_of(config).memory)
        self._change_there()

    def _change_there(self) -> None:
        rules, models = rules_of(self.config).memory, self.config.models.values()
        holdings = {one.holding.name: one.holding for one in models if one.holding}
        for name in self.there.keys() - holdings.keys():
            self.there.pop(name).change(None)
        for name, holding in holdings.items():
            known = self.there.get(name)
            if known is None:
                known = self.there[name] = self._new(holding)
                self._begin(known)
            wanted = rules and rules_there(holding, rules)
            if known.rules != wanted:
                known.change(wanted)

    def _new(self, holding: Holding) -> RoomKeeper:
        mates, name = Housemates(self.servers, holding.name), holding.name
        look = SurveyThere(mates, lambda: self._gres_of(name))
        return RoomKeeper(mates, None, self._looked, look.take)

    def _gres_of(self, name: str) -> str:
        found = (one.holding for one in self.config.models.values() if one.allocation == name)
        return next((holding.allocation.gres for holding in found if holding), "")

    def _begin(self, keeper: RoomKeeper) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(kept_up, keeper.run)

    async def run(self) -> None:
        """Look whenever a look is wanted, for as long as the daemon runs."""
        try:
            async with trio.open_nursery() as self._nursery:
                for keeper in (self.here, *self.there.values()):
                    self._begin(keeper)
        finally:
            self._nursery = None

    def of(self, server: ModelServer) -> RoomKeeper:
        """Return the keeper of the memory where a model runs."""
        return self.there.get(server.model.allocation, self.here)

    def stale(self, names: Iterable[str]) -> set[str]:
        """Return the models whose memory must be measured first, and ask for that."""
        old = {name for name in names if not self.of(self.servers[name]).is_fresh}
        for name in old:
            self.of(self.servers[name]).refresh()
        return old

    def changed(self, server: ModelServer) -> None:
        """Take note that a model has taken memory, or freed some."""
        self.of(server).changed(server)


def rules_there(holding: Holding, rules: MemoryRules) -> MemoryRules:
    """Return what models may use of an allocation: its GPUs, and its host memory."""
    size = holding.allocation.memory
    host = None if size is None else Gibibytes(size / GIB)
    return attrs.evolve(rules, gpus=(), host_memory=host)
