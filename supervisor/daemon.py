"""The supervisor as the daemon holds it: all model servers, and what may be asked of them.

Owns the nursery in which every model process lives, and the way from one configuration to the
next. Leaving its block ends all processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from configschema import Config, Limits, Model, resolve_limits
from supervisor.actions import Caller
from supervisor.budget import BudgetKeeper, budget_for
from supervisor.changes import Changes, changes
from supervisor.errors import (
    CannotSleep,
    ModelFailed,
    NotRunning,
    Removed,
    SupervisorError,
    UnknownModel,
    Unloaded,
)
from supervisor.memory import Measure, held_by
from supervisor.racing import race
from supervisor.readiness import Probe
from supervisor.records import Record, Records
from supervisor.scheduler import Scheduler, rules_for
from supervisor.server import ModelServer
from supervisor.snapshot import Snapshot
from supervisor.states import AT_REST, ENDED, State, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Supervisor:
    """All models of a configuration. Names may be ids or aliases.

    Attributes:
        config: the one in effect.
        probe: asks a model server once whether it is ready.
        call: makes one HTTP step into sleep or out of it.
        limits: per model id, instead of what the configuration resolves to.
        measure: tells how much host memory a process tree holds.
        nursery: every model process lives in it.
        records: what the next daemon is left; None leaves nothing.
        inherited: processes of an earlier daemon, by model.
        servers: by id; one whose model was removed stays until its process has ended.
    """

    config: Config
    probe: Probe
    call: Caller
    limits: Mapping[str, Limits]
    measure: Measure
    nursery: trio.Nursery
    records: Records | None = None
    inherited: dict[str, Record] = attrs.field(factory=dict)
    servers: dict[str, ModelServer] = attrs.field(factory=dict, init=False)
    _scheduler: Scheduler = attrs.field(init=False)
    _keeper: BudgetKeeper = attrs.field(init=False)
    _to_wake: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._scheduler = Scheduler(self.servers, rules_for(self.config))
        self._keeper = BudgetKeeper(self.servers, budget_for(self.config), self.measure)
        for name in self.config.models:
            self._add(name)
        self.nursery.start_soon(self._scheduler.run)
        self.nursery.start_soon(self._keeper.run)

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

    def lease(self, name: str) -> AbstractAsyncContextManager[ModelServer]:
        """Use a model: wait until it serves, keep it serving for as long as the block lasts.

        Raises:
            UnknownModel, TooManyRequests, ModelFailed, Unloaded: see `supervisor.errors`.
        """
        return self._scheduler.lease(self.find(name).id)

    def snapshots(self) -> list[Snapshot]:
        """Return how every model stands, in the order of their ids."""
        return [self.servers[name].snapshot() for name in sorted(self.servers)]

    async def load(self, name: str) -> Snapshot:
        """Bring a model up, as a request would.

        Raises:
            UnknownModel, TooManyRequests, ModelFailed, Unloaded: see `supervisor.errors`.
        """
        async with self.lease(name) as server:
            snapshot = server.snapshot()
            return attrs.evolve(snapshot, in_flight=max(0, snapshot.in_flight - 1))  # without this

    async def wake(self, name: str) -> Snapshot:
        """Wake a model that sleeps; one that is awake stays so.

        Raises:
            CannotSleep: it has no way to sleep.
            NotRunning: it has no process.
            UnknownModel, TooManyRequests, ModelFailed, Unloaded: see `supervisor.errors`.
        """
        self._running_sleeper(name)
        return await self.load(name)

    async def sleep(self, name: str) -> Snapshot:
        """Put a model to sleep once its requests have ended; new ones wait and wake it again.

        Raises:
            CannotSleep: it has no way to sleep.
            NotRunning: it has no process.
            ModelFailed: it did not fall asleep and was stopped.
            UnknownModel: there is no such model.
        """
        server = self._running_sleeper(name)
        if server.snapshot().state is State.ASLEEP:
            return server.snapshot()
        server.wish(Wish.SLEEP)
        snapshot = await server.reached(ENDED | {State.ASLEEP})
        if snapshot.state in ENDED:
            reason = snapshot.failure or "it was told to stop"
            raise ModelFailed(snapshot.model, f"{reason}; it was stopped and does not sleep")
        return snapshot

    async def unload(self, name: str) -> Snapshot:
        """Stop a model now; its requests are cut, those that wait for it are sent away.

        Raises:
            UnknownModel: there is no such model.
        """
        server = self.server(name)
        server.wish(Wish.STOP)
        self._to_wake.discard(server.model.id)
        self._scheduler.refuse(server.model.id, Unloaded(server.model.id))
        snapshot = await server.reached(ENDED)
        self._scheduler.settle()
        return snapshot

    # All models at once: another configuration, a pause, the end.

    def reload(self, config: Config) -> Changes:
        """Put another configuration into effect; requests that run are not cut by it.

        Models that need no other process keep theirs. Those that do are drained and replaced, and
        brought up again if they were in use; those that are gone are drained and stopped.
        """
        found = changes(self.config, config)
        awake = [name for name in found.replaced if self.servers[name].snapshot().serving]
        self.config = config
        for name in found.removed:
            self._scheduler.refuse(name, Removed(name))
            self.servers[name].retire()
            self.nursery.start_soon(self._forget, self.servers[name])
        for name in found.added:
            self._add(name)
        for name in found.adjusted + found.replaced:
            model = config.models[name]
            server, limits = self.servers[name], self._limits_of(name)
            server.change(model, limits, replace=name in found.replaced)
        for name in config.models:
            self.servers[name].log_file = self._log_file(name)  # from its next process on
        self._scheduler.rules = rules_for(config)
        self._keeper.budget = budget_for(config)
        self._keeper.look()
        self._scheduler.settle()
        for name in awake:
            self.nursery.start_soon(self._bring_back, name)
        return found

    def _limits_of(self, name: str) -> Limits:
        return self.limits.get(name) or resolve_limits(self.config, self.config.models[name])

    def _add(self, name: str) -> None:
        """Begin to own a model; it may still be leaving since an earlier configuration."""
        model, limits = self.config.models[name], self._limits_of(name)
        if name in self.servers:
            self.servers[name].change(model, limits, replace=True)
            return
        server = ModelServer(
            model,
            limits,
            self.probe,
            self.call,
            self._log_file(name),
            self.inherited.pop(name, None),
        )
        server.on_change = partial(self._changed, server)
        server.on_failure = partial(self._scheduler.fail, name)
        self.servers[name] = server
        self.nursery.start_soon(server.run)

    def _log_file(self, name: str) -> Path | None:
        return self.records.log_file(name) if self.records and self.config.adopt else None

    async def _forget(self, server: ModelServer) -> None:
        """Forget a removed model when its process is gone, unless the model is back."""
        name = server.model.id
        await server.reached(ENDED)
        if name not in self.config.models and self.servers.get(name) is server:
            del self.servers[name]
            server.dismiss()

    async def _bring_back(self, name: str) -> None:
        try:
            await self.load(name)
        except SupervisorError as error:
            log.warning(f"<{name}> Was not brought up again: {error}", model=name)

    def _changed(self, server: ModelServer) -> None:
        self._scheduler.settle()
        if server.snapshot().state is State.ASLEEP:
            self._keeper.look()
        self._note()

    @property
    def is_paused(self) -> bool:
        """Whether the memory was yielded, and no model is brought up."""
        return self._scheduler.paused

    async def pause(self, *, refuse: bool = False) -> list[Snapshot]:
        """Yield the memory: let all requests end, then all models sleep, or stop if they cannot.

        Returns how they stand when that is done, or when it is called off.

        Args:
            refuse: send away who asks for a model meanwhile, instead of letting them wait.
        """
        held = [one for one in self.snapshots() if one.stays]
        self._to_wake |= {one.model for one in held}
        self._scheduler.pause(refuse=refuse)
        for snapshot in held:
            asleep_soon = snapshot.can_sleep and snapshot.state is not State.STARTING
            self.servers[snapshot.model].wish(Wish.SLEEP if asleep_soon else Wish.DRAIN)
        await race(self._all_at_rest, self._scheduler.resumed)
        return self.snapshots()

    async def _all_at_rest(self) -> None:
        async with trio.open_nursery() as nursery:
            for server in self.servers.values():
                nursery.start_soon(server.reached, AT_REST)

    async def resume(self) -> list[Snapshot]:
        """Serve again, and bring up what was awake when the memory was yielded.

        Returns how the models stand when that is done.
        """
        names, self._to_wake = sorted(self._to_wake), set()
        for server in self.servers.values():
            snapshot = server.snapshot()
            if snapshot.state is State.READY and not snapshot.leaving:
                server.wish(Wish.SERVE)  # it still drains for the pause
        self._scheduler.resume()
        async with trio.open_nursery() as nursery:
            for name in names:
                if name in self.config.models:
                    nursery.start_soon(self._bring_back, name)
        return self.snapshots()

    def let_go(self) -> None:
        """Let the processes live on when this ends, where the configuration wants that."""
        if not self.config.adopt or not self._note():  # or the next daemon would not know them
            return
        for server in self.servers.values():
            server.let_go()

    def _note(self) -> bool:
        """Leave the next daemon word of the processes; return whether that could be done."""
        if self.records is None:
            return False
        servers = self.servers.values()
        return self.records.note((one.model, one.snapshot(), one.logs) for one in servers)

    def cut(self) -> None:
        """End every model process without its grace."""
        for server in self.servers.values():
            server.cut()

    def _running_sleeper(self, name: str) -> ModelServer:
        server = self.server(name)
        snapshot = server.snapshot()
        if not snapshot.can_sleep:
            raise CannotSleep(snapshot.model)
        if snapshot.state in ENDED | {State.STOPPING}:
            raise NotRunning(snapshot.model, snapshot.state.value)
        return server


@asynccontextmanager
async def open_supervisor(
    config: Config,
    probe: Probe,
    call: Caller,
    limits: Mapping[str, Limits] | None = None,
    measure: Measure = held_by,
    records: Records | None = None,
    inherited: Mapping[str, Record] | None = None,
) -> AsyncIterator[Supervisor]:
    """Run the model servers of a configuration for as long as the block lasts.

    Args:
        config: what to run.
        probe: asks a model server once whether it is ready.
        call: makes one HTTP step into sleep or out of it.
        limits: per model id, instead of what the configuration resolves to.
        measure: tells how much host memory a process tree holds.
        records: what the next daemon is left.
        inherited: processes of an earlier daemon, by model; see `leftovers`.
    """
    async with trio.open_nursery() as nursery:
        try:
            yield Supervisor(
                config, probe, call, limits or {}, measure, nursery, records, dict(inherited or {})
            )
        finally:
            nursery.cancel_scope.cancel()
