"""One model's dealings with the others: what it tells them, who is watched, who makes room for it.

Owns which models share a GPU, as far as the file says so, and which sleeper is worth least. The
scheduler decides when a model makes room for a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import attrs
import structlog
import trio

from configschema import Config, Model, rules_of
from supervisor.model.server import ModelServer
from supervisor.model.surroundings import Surroundings
from supervisor.room.choice import said_by
from supervisor.scheduling.apart import Rooms
from supervisor.sleep.proof import LITTLE
from supervisor.states.causes import Cause, Why
from supervisor.states.learned import Learned
from supervisor.states.racing import race
from supervisor.states.refusals import StillHeld
from supervisor.states.table import ENDED, State, Wish
from supervisor.succession.knowledge import Knowledge
from supervisor.upkeep.sleepbudget import Sleeper, by_value

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


class Others(Protocol):
    """All models, as the fleet keeps them."""

    config: Config
    servers: dict[str, ModelServer]
    on_change: Callable[[ModelServer], None]
    on_failure: Callable[[str, str], None]
    on_crash: Callable[[str], None]
    rooms: Rooms
    knowledge: Knowledge

    def note_soon(self, name: str) -> None:
        """Write a record of a server for the next daemon, soon."""


@attrs.define(eq=False)
class Neighbours(Surroundings):
    """One model's view of the other models.

    Attributes:
        name: the model's id.
        others: all models.
    """

    name: str
    others: Others

    def changed(self) -> None:
        """Let the scheduler decide, and update the record for the next daemon."""
        self.others.on_change(self.others.servers[self.name])
        self.others.note_soon(self.name)

    def failed(self, reason: str) -> None:
        """Refuse the requests that wait for the model."""
        self.others.on_failure(self.name, reason)

    def crashed(self) -> None:
        """Start the model again, if it is watched."""
        if self.watched():
            self.others.on_crash(self.name)

    def watched(self) -> bool:
        """Return what the file says; without that, whether it is persistent or preloaded."""
        model = self.others.config.models.get(self.name)
        if model is None:
            return False
        return is_watched(self.others.config, model)

    def ignores_leftovers(self) -> bool:
        """Return what the file says."""
        return self.others.config.ignore_leftovers

    def taken_ports(self) -> set[int]:
        """Return the ports of all other models, whether they run or not."""
        config = self.others.config
        given = {model.port for name, model in config.models.items() if name != self.name}
        present = {one.model.port for name, one in self.others.servers.items() if name != self.name}
        return {port for port in given | present if port}

    def are_placed_by_memory(self) -> bool:
        """Return what the file says."""
        return self.others.rooms.here.rules is not None

    def learned_of(self, model: Model) -> Learned:
        """Return what the state folder keeps."""
        return self.others.knowledge.recall(model)

    def environment(self) -> Mapping[str, str]:
        """Return the GPUs that were chosen for it."""
        server = self.others.servers[self.name]
        return self.others.rooms.of(server).environment(self.name)

    def sleepers(self) -> Sequence[str]:
        """Return the models that sleep on its GPU, the least valuable first."""
        own = self.others.servers[self.name].model
        beside = [
            server
            for name, server in self.others.servers.items()
            if name != self.name and _may_be_stopped(server) and meet(own, server.model)
        ]
        found = [
            Sleeper(model=one.model.id, idle=one.usage.idle_seconds(), costs=one.at.costs)
            for one in beside
        ]
        return [one.model for one in by_value(found)]

    async def clear(self) -> str | None:
        """Stop the models that sleep on its GPU, and wait for their end; say why that failed."""
        leaving = [self.others.servers[name] for name in self.sleepers()]
        for server in leaving:
            name = server.model.id
            text = f"<{name}> Stopping sleeping model: '{self.name}' needs its room"
            log.info(text, model=name, needed_by=self.name)
            why = "its memory was not enough beside the sleeping models"
            cause = Cause(why=Why.ROOM, text=why, model=self.name)
            server.wish(Wish.STOP, cause)
        async with trio.open_nursery() as nursery:
            for server in leaving:
                nursery.start_soon(race, partial(server.reached, ENDED), server.until_stuck)
        stuck = [one for one in leaving if one.at.left]
        if stuck and not self.ignores_leftovers():
            return str(StillHeld(self.name, stuck[0].model.id, stuck[0].at.left))
        return None


def is_watched(config: Config, model: Model) -> bool:
    """Whether a model is checked even without requests."""
    if model.watch is not None:
        return model.watch
    groups = rules_of(config).groups.values()
    persistent = any(group.persistent and model.id in group.members for group in groups)
    preloaded = (config.find(name.strip()) for name in config.hooks.on_startup.preload)
    return persistent or any(one is not None and one.id == model.id for one in preloaded)


def gpus_of(model: Model) -> frozenset[str] | None:
    """Return the GPUs that a model's environment or command names; None if it may use any."""
    said = said_by(model.env, model.cmd.text)
    return frozenset(said.split(",")) if said else None


def _may_be_stopped(server: ModelServer) -> bool:
    """Whether a model sleeps, may still hold GPU memory, and is not pinned."""
    if server.known.pin(server.model):
        return False
    amount = server.sleeping.amounts.get("GPU")
    return server.at.state is State.ASLEEP and not (amount and amount.left < LITTLE)


def meet(one: Model, other: Model) -> bool:
    """Whether two models may have memory of the same GPU."""
    gpus, its = gpus_of(one), gpus_of(other)
    is_same = gpus is None or its is None or not gpus.isdisjoint(its)
    return is_same and one.allocation == other.allocation
