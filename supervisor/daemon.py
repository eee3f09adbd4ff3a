"""The supervisor as the daemon holds it: all model servers, their scheduler, and what may be asked.

Owns the nursery in which every model process lives. Leaving its block ends them all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio

from configschema import Config, Limits, Model, resolve_limits
from supervisor.actions import Caller
from supervisor.errors import CannotSleep, ModelFailed, NotRunning, UnknownModel, Unloaded
from supervisor.readiness import Probe
from supervisor.scheduler import Scheduler, rules_for
from supervisor.server import ModelServer
from supervisor.snapshot import Snapshot
from supervisor.states import ENDED, State, Wish


@attrs.define(eq=False)
class Supervisor:
    """All models of one configuration. Names may be ids or aliases."""

    config: Config
    servers: dict[str, ModelServer]
    _scheduler: Scheduler

    def find(self, name: str) -> Model:
        """Return the model of this name.

        Raises:
            UnknownModel: there is none.
        """
        model = self.config.find(name)
        if model is None:
            raise UnknownModel(name)
        return model

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
        server = self.servers[self.find(name).id]
        server.wish(Wish.STOP)
        self._scheduler.refuse(server.model.id, Unloaded(server.model.id))
        snapshot = await server.reached(ENDED)
        self._scheduler.settle()
        return snapshot

    def cut(self) -> None:
        """End every model process without its grace."""
        for server in self.servers.values():
            server.cut()

    def _running_sleeper(self, name: str) -> ModelServer:
        server = self.servers[self.find(name).id]
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
    limits: dict[str, Limits] | None = None,
) -> AsyncIterator[Supervisor]:
    """Run the model servers of a configuration for as long as the block lasts.

    Args:
        config: what to run.
        probe: asks a model server once whether it is ready.
        call: makes one HTTP step into sleep or out of it.
        limits: per model id, instead of what the configuration resolves to.
    """
    servers = {
        name: ModelServer(
            model, (limits or {}).get(name) or resolve_limits(config, model), probe, call
        )
        for name, model in config.models.items()
    }
    scheduler = Scheduler(servers, rules_for(config))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        for server in servers.values():
            server.on_change = scheduler.settle
            server.on_failure = partial(scheduler.fail, server.model.id)
            nursery.start_soon(server.run)
        try:
            yield Supervisor(config, servers, scheduler)
        finally:
            nursery.cancel_scope.cancel()
