"""The supervisor as the daemon holds it: all model servers, and what may be asked of them.

Owns what an operator asks for: loading, waking, putting to sleep, unloading, a reload, a pause.
Leaving its block ends all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import structlog
import trio

from configschema import Config, Model
from supervisor.fleet import Fleet
from supervisor.model.leases import Leases, NamedLease
from supervisor.model.server import ModelServer
from supervisor.scheduling.forecast import Forecast
from supervisor.scheduling.outlook import rules_for
from supervisor.scheduling.queueing import Queued, Turn
from supervisor.scheduling.roomkeeper import RoomKeeper
from supervisor.scheduling.scheduler import Scheduler
from supervisor.states.causes import AN_OPERATOR, Asker, Asking, Cause, Why
from supervisor.states.racing import race
from supervisor.states.refusals import (
    CannotSleep,
    ModelFailed,
    NotRunning,
    Removed,
    StillHeld,
    SupervisorError,
    UnknownModel,
    Unloaded,
)
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import ENDED, State, Wish
from supervisor.succession.changes import Changes
from supervisor.upkeep.pausing import Pausing
from supervisor.upkeep.sleepbudget import BudgetKeeper, budget_for

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Supervisor:
    """All models of a configuration, and what may be asked of them. Names may be ids or aliases.

    Attributes:
        leases: that somebody has asked for.
        on_reload: called when another configuration is in effect.
    """

    _fleet: Fleet
    _scheduler: Scheduler
    _keeper: BudgetKeeper
    leases: Leases
    on_reload: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    _pausing: Pausing = attrs.field(init=False)

    @_pausing.default
    def _not_paused_yet(self) -> Pausing:
        return Pausing(self.servers, self._scheduler, self.bring_back)

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self._fleet.config

    @property
    def servers(self) -> Mapping[str, ModelServer]:
        """By id; one whose model was removed stays until its process has ended."""
        return self._fleet.servers

    def find(self, name: str) -> Model:
        """Return the model of this name.

        Raises:
            UnknownModel: there is none.
        """
        model = self.config.find(name)
        if model is None:
            raise UnknownModel(name)
        return model

    def server(self, name: str) -> ModelServer:
        """Return the model server of this name.

        Raises:
            UnknownModel: there is none.
        """
        return self.servers[self.find(name).id]

    async def until_closed(self, model: str) -> None:
        """Return when a model's id is closed for newcomers: its requests keep others out."""
        await self._scheduler.until_closed(model)

    def lease(self, name: str, asker: Asking = AN_OPERATOR) -> Turn:
        """Use a model: wait until it serves, keep it serving for as long as the block lasts.

        Args:
            name: of the model.
            asker: who asks for it.

        Raises:
            UnknownModel: there is none; for what entering the block raises, see `Turn`.
        """
        return self._scheduler.lease(self.find(name).id, asker)

    def place(self, model: str) -> int:
        """Return a model's place in the queue, in the order of coming; 0 if nobody waits for it."""
        return self._scheduler.place(model)

    @property
    def room(self) -> RoomKeeper:
        """Who looks at the memory of this machine."""
        return self._fleet.rooms.here

    def queue(self, most: int) -> list[Queued]:
        """Return who waits, in the order of their coming, so many at most."""
        return self._scheduler.queue(most)

    def ready_in(self, model: str) -> Forecast | None:
        """Return when a model's id would be ready for who asks now, as far as is known."""
        return self._scheduler.ready_in(model)

    def snapshots(self) -> list[Snapshot]:
        """Return how every model stands, in the order of their ids."""
        return [self.servers[name].snapshot() for name in sorted(self.servers)]

    async def load(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Bring a model up, as a request would.

        Args:
            name: of the model.
            asker: who asks for it.

        Raises:
            SupervisorError: unknown, refused by a limit or a pause, failed, unloaded or removed.
        """
        async with self.lease(name, asker) as server:
            snapshot = server.snapshot()
            return attrs.evolve(snapshot, in_flight=max(0, snapshot.in_flight - 1))  # without this

    async def keep_for(
        self, name: str, seconds: float, holder: str, reason: str = ""
    ) -> tuple[NamedLease, bool]:
        """Bring a model up, as a request would, and let it stay for a time.

        A lease that the holder has on the model already goes on, with the new end.

        Args:
            name: of the model.
            seconds: that it stays, from when it serves.
            holder: who wants that.
            reason: what for.

        Returns:
            The lease, and whether it is a new one.

        Raises:
            TooManyLeases: there are as many as may be; nothing was brought up.
            SupervisorError: unknown, refused by a limit or a pause, failed, unloaded or removed.
        """
        server = self.server(name)
        model = server.model.id
        self.leases.make_sure_of_a_place(model, holder)
        if server.is_serving and self.leases.of(model, holder):  # however many use it
            return self._lease_on(model, seconds, holder, reason)
        async with self.lease(model, Asker(why=Why.LEASE)):
            return self._lease_on(model, seconds, holder, reason)

    def _lease_on(
        self, model: str, seconds: float, holder: str, reason: str
    ) -> tuple[NamedLease, bool]:
        if model not in self.config.models:  # it has served until now
            raise Removed(model)
        is_new = self.leases.of(model, holder) is None
        return self.leases.give(model, seconds, holder, reason), is_new

    async def wake(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Wake a model that sleeps; one that is awake stays so.

        Raises:
            CannotSleep: it has no way to sleep.
            NotRunning: it has no process.
            SupervisorError: unknown, refused by a limit or a pause, failed, unloaded or removed.
        """
        self._running_sleeper(name)
        return await self.load(name, asker)

    async def sleep(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Put a model to sleep once its requests have ended; new ones wait and wake it again.

        A model whose sleep is switched off after failures is trusted again.

        Raises:
            CannotSleep: it has no way to sleep.
            NotRunning: it has no process.
            ModelFailed: it did not fall asleep and was stopped.
            UnknownModel: there is no such model.
        """
        server = self._running_sleeper(name)
        if server.snapshot().state is State.ASLEEP:
            return server.snapshot()
        log.info(f"<{server.model.id}> Sleep was asked for", model=server.model.id, **asker.facts)
        if not server.can_sleep:
            server.forgive()
        server.wish(Wish.SLEEP, Cause.by(asker))
        snapshot = await race(partial(server.reached, ENDED | {State.ASLEEP}), server.until_stuck)
        if snapshot.left:
            raise StillHeld(snapshot.model, snapshot.model, snapshot.left)
        if snapshot.state in ENDED:
            reason = snapshot.failure or "it was told to stop"
            raise ModelFailed(snapshot.model, f"{reason}; it was stopped and does not sleep")
        return snapshot

    async def unload(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Stop a model now; its requests are cut, those that wait for it are sent away.

        Its leases end.

        What an earlier end could not end is given up: others may start then.

        Raises:
            UnknownModel: there is no such model.
            StillHeld: it could not be ended.
        """
        server = self.servers.get(name) or self.server(name)  # it may be leaving
        model = server.model.id
        log.info(f"<{model}> Unload was asked for", model=model, **asker.facts)
        server.unloads += 1
        self.leases.end_all_of(model, "the model was unloaded")
        server.wish(Wish.STOP, Cause.by(asker))
        server.give_up()
        self._pausing.leave_out(model)
        self._scheduler.refuse(model, Unloaded(model))
        snapshot = await race(partial(server.reached, ENDED), server.until_stuck)
        if snapshot.left:
            raise StillHeld(model, model, snapshot.left)
        server.start_at_once()
        self._scheduler.settle()
        return snapshot

    # All models at once: another configuration, a pause, the end.

    def reload(self, config: Config) -> Changes:
        """Put another configuration into effect; requests that run are not cut by it.

        Models that need no other process keep theirs. Those that do are drained and replaced, and
        brought up again if they were in use; those that are gone are drained and stopped.
        """
        before = {name: server.snapshot().serving for name, server in self.servers.items()}
        found = self._fleet.change(config)
        for name in found.removed:
            self._scheduler.refuse(name, Removed(name))
            self.leases.end_all_of(name, "the model was removed")
            self._pausing.leave_out(name)
        self._scheduler.change(rules_for(config))
        self._fleet.rooms.change(config)
        self._keeper.budget = budget_for(config)
        self._keeper.look()
        self._scheduler.settle()
        self.on_reload()
        for name in found.replaced:
            if before[name]:
                self.bring_back(name, Why.RELOAD)
        return found

    def bring_back(self, name: str, why: Why) -> trio.Event:
        """Bring a model up, whoever leaves meanwhile; return what is set when that has ended."""
        done = trio.Event()

        async def bring() -> None:
            try:
                await self.load(name, Asker(why=why))
            except SupervisorError as error:
                log.warning(f"<{name}> Was not brought up again: {error}", model=name)
            done.set()

        self._fleet.nursery.start_soon(bring)
        return done

    @property
    def is_paused(self) -> bool:
        """Whether the memory was yielded, and no model is brought up."""
        return self._scheduler.paused

    async def pause(self, *, refuse: bool = False) -> list[Snapshot]:
        """Yield the memory: let all requests end, then all models sleep, or stop if they cannot.

        Returns how they stand when that is done, or when it is called off. With `refuse`, who asks
        for a model meanwhile is sent away instead of waiting.
        """
        await self._pausing.begin(refuse=refuse)
        return self.snapshots()

    async def resume(self) -> list[Snapshot]:
        """Serve again, bring up what was awake before the pause, and return how all stand then."""
        await self._pausing.end()
        return self.snapshots()

    def let_go(self) -> int:
        """Let processes live on when this ends, where that is wanted; return how many can."""
        return self._fleet.let_go()

    def cut(self) -> None:
        """End every model process without its grace."""
        self._fleet.cut()

    def _running_sleeper(self, name: str) -> ModelServer:
        server = self.server(name)
        snapshot = server.snapshot()
        if not server.model.can_sleep:
            raise CannotSleep(snapshot.model)
        if snapshot.state in ENDED | {State.STOPPING}:
            raise NotRunning(snapshot.model, snapshot.state.value)
        return server
