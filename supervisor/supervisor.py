"""The supervisor as the daemon uses it: all model servers, and what callers may ask of them.

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
from configschema.text.likeness import nearest
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
        leases: the leases that callers have asked for.
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
        """By id; the server of a removed model stays until its process has ended."""
        return self._fleet.servers

    def find(self, name: str) -> Model:
        """Return the model of this name.

        Raises:
            UnknownModel: no model has this name.
        """
        model = self.config.find(name)
        if model is None:
            raise UnknownModel(name, nearest(name, self.config.by_name))
        return model

    def server(self, name: str) -> ModelServer:
        """Return the model server of this name.

        Raises:
            UnknownModel: no model has this name.
        """
        return self.servers[self.find(name).id]

    async def until_closed(self, model: str) -> None:
        """Return when a model's id is closed for newcomers: its requests keep others out."""
        await self._scheduler.until_closed(model)

    def lease(self, name: str, asker: Asking = AN_OPERATOR) -> Turn:
        """Use a model: wait until it serves, keep it serving for as long as the block lasts.

        Args:
            name: the name of the model.
            asker: the caller.

        Raises:
            UnknownModel: no model has this name; see `Turn` for what entering the block raises.
        """
        return self._scheduler.lease(self.find(name).id, asker)

    def place(self, model: str) -> int:
        """Return a model's place among the models that are waited for, 1 is first; 0 for none."""
        return self._scheduler.place(model)

    @property
    def room(self) -> RoomKeeper:
        """The keeper of this machine's memory."""
        return self._fleet.rooms.here

    def queue(self, most: int) -> list[Queued]:
        """Return the requests that wait, in the order of arrival, up to this many."""
        return self._scheduler.queue(most)

    def ready_in(self, model: str) -> Forecast | None:
        """Return when a model's id would be ready for a new request, as far as is known."""
        return self._scheduler.ready_in(model)

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots of all models, in the order of their ids."""
        return [self.servers[name].snapshot() for name in sorted(self.servers)]

    async def load(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Load a model, as a request would.

        Args:
            name: the name of the model.
            asker: the caller.

        Raises:
            SupervisorError: unknown, refused by a limit or a pause, failed, unloaded or removed.
        """
        async with self.lease(name, asker) as server:
            snapshot = server.snapshot()
            return attrs.evolve(snapshot, in_flight=max(0, snapshot.in_flight - 1))  # without this

    async def keep_for(
        self, name: str, seconds: float, holder: str, reason: str = ""
    ) -> tuple[NamedLease, bool]:
        """Load a model, as a request would, and let it stay for a time.

        If the holder has a lease on the model already, that lease gets the new end.

        Args:
            name: the name of the model.
            seconds: how long it stays, from when it serves.
            holder: who wants that.
            reason: what the lease is for.

        Returns:
            The lease, and whether it is a new one.

        Raises:
            TooManyLeases: the limit is reached; nothing was loaded.
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
        if model not in self.config.models:  # removed, but it has served until now
            raise Removed(model)
        is_new = self.leases.of(model, holder) is None
        return self.leases.give(model, seconds, holder, reason), is_new

    async def wake(self, name: str, asker: Asker = AN_OPERATOR) -> Snapshot:
        """Wake a model that sleeps; a model that is awake stays so.

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
            UnknownModel: no model has this name.
        """
        server = self._running_sleeper(name)
        if server.snapshot().state is State.ASLEEP:
            return server.snapshot()
        log.info(f"<{server.model.id}> Sleep requested", model=server.model.id, **asker.facts)
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
        """Stop a model now; its requests are cut off, and requests that wait for it are refused.

        Its leases end.

        What an earlier end could not end is given up, so that other models may start.

        Raises:
            UnknownModel: no model has this name.
            StillHeld: it could not be ended.
        """
        server = self.servers.get(name) or self.server(name)  # a removed model may still be ending
        model = server.model.id
        log.info(f"<{model}> Unload requested", model=model, **asker.facts)
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
        """Put another configuration into effect; running requests are not cut off.

        Models that need no other process keep theirs. Models that need one are drained and
        replaced, and loaded again if they were in use. Removed models are drained and stopped.
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
        """Load a model, whichever models make room; return an event that is set when that ends."""
        done = trio.Event()

        async def bring() -> None:
            try:
                await self.load(name, Asker(why=why))
            except SupervisorError as error:
                log.warning(f"<{name}> Could not be loaded again: {error}", model=name)
            done.set()

        self._fleet.nursery.start_soon(bring)
        return done

    @property
    def is_paused(self) -> bool:
        """Whether llamadoze is paused: no model is started or woken."""
        return self._scheduler.paused

    async def pause(self, *, refuse: bool = False) -> list[Snapshot]:
        """Free the memory: let all requests end, then all models sleep, or stop if they cannot.

        Returns the snapshots when that is done, or at a resume. With `refuse`, requests for a model
        are refused meanwhile instead of waiting.
        """
        await self._pausing.begin(refuse=refuse)
        return self.snapshots()

    async def resume(self) -> list[Snapshot]:
        """Serve again, load the models that were awake before, and return all snapshots then."""
        await self._pausing.end()
        return self.snapshots()

    def let_go(self) -> int:
        """Let processes live on when this ends, if `adopt` is on; return how many can."""
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
