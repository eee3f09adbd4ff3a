"""How a model gets its server: llamadoze starts one, or takes one that runs already.

Owns both ways, and what is logged and done if either fails. The model server decides what the
server is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import trio

from configschema import Limits, Model, is_reachable
from supervisor.model.reasons import Ending
from supervisor.model.resting import Wanted
from supervisor.places.containers import StopCommand, is_outside, stop_command
from supervisor.places.handles import Handle
from supervisor.places.running import CannotRun, Hear, Order, Place, RunningServer
from supervisor.processes.plainfiles import why_not_writable
from supervisor.sleep.actions import Actions, environment_of
from supervisor.states.durations import seconds
from supervisor.states.snapshot import Queue
from supervisor.states.standing import Standing
from supervisor.states.table import Event, State, Wish


class Birth(Protocol):
    """A way to get a server."""

    def server(self, hear: Hear) -> AbstractAsyncContextManager[RunningServer]:
        """Have the server for as long as the block lasts; leaving it ends it, or lets it go.

        Args:
            hear: called with its output.

        Raises:
            CannotRun: there is no server; the text says why.
        """

    def announce(self) -> None:
        """Log how the server came, and step to the state that this leaves the model in."""

    def failed(self, reason: str) -> Ending:
        """Return what follows if there is no server."""


@attrs.frozen
class Start:
    """Starts a server.

    Attributes:
        model: what to run.
        limits: its grace at the end, and the timeout of its cmdStop.
        place: where to run it.
        log_file: the file that it writes to, so that it can outlive the daemon; None uses a pipe.
        at: the model's state.
        clear: makes the room that the model is known to need; returns why it cannot.
        taken: returns the ports of other models.
        moved: called with the model as it is started, which may have another port.
        choice: returns the variables that tell the process which GPUs it may use.
        run: runs a command of the model.
        unwanted: returns when the server is not wanted any more.
    """

    model: Model
    limits: Limits
    place: Place
    log_file: Path | None
    at: Standing
    clear: Callable[[], Awaitable[str | None]]
    taken: Callable[[], set[int]]
    moved: Callable[[Model], None]
    choice: Callable[[], Mapping[str, str]]
    run: Callable[[StopCommand], Awaitable[str | None]]
    unwanted: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def server(self, hear: Hear) -> AsyncIterator[RunningServer]:
        """Start it, unless that is pointless."""
        self.at.step(Event.QUEUE if self.model.holding else Event.START)
        if reason := await self.clear():
            raise CannotRun(reason)
        if is_outside(self.model):  # what an earlier life left may have its port and its name
            await self._obstacle(self.model)
        model = await self.place.fitted(self.model, self.taken)
        if model is not self.model:
            self._tell_of_port(model)
            self.moved(model)
        if reason := await self._obstacle(model):
            raise CannotRun(reason)
        order = Order(
            model=model,
            limits=self.limits,
            env={**environment_of(model), **self.choice()},
            hear=hear,
            log_file=self._usable_log_file(),
            waits=self.at.note_queue,
            begins=partial(self.at.step, Event.START),
            unwanted=self.unwanted,
        )
        async with self.place.start(order) as server:
            if server.landing and model.on_landing:
                self.moved(model.on_landing(server.landing))
            yield server

    async def _obstacle(self, model: Model) -> str | None:
        """Return what is in the way, once a stop command for an earlier life's rest has run."""
        reason = await self.place.obstacle(model)
        may_be_left = reason and model.cmd and is_reachable(model.proxy)
        command = stop_command(model, self.limits) if may_be_left else None
        if command is None:
            return reason
        text = f"{reason}. Running {command.name}, in case an earlier life has left it"
        self.at.tell("warning", text)
        failure = await self.run(command)
        again = await self.place.obstacle(model)
        return f"{again} ({command.name} {failure})" if again and failure else again

    def _tell_of_port(self, model: Model) -> None:
        text = f"Port {self.model.port} is not free; the model gets port {model.port}"
        self.at.tell("info", text, port=model.port)

    def _usable_log_file(self) -> Path | None:
        """Return the log file, or None if it cannot be written: then a pipe must do."""
        reason = self.log_file and why_not_writable(self.log_file)
        if reason:
            text = f"Cannot write {self.log_file}: {reason}; the process will not outlive llamadoze"
            self.at.tell("warning", text)
        return None if reason else self.log_file

    def announce(self) -> None:
        """Log how long it has to become ready."""
        limit = self.limits.ready
        what = "Starting process" if self.model.cmd else "Waiting for the server"
        self.at.tell("info", f"{what} (timeout: {seconds(limit)})", timeout_s=limit)

    def failed(self, reason: str) -> Ending:
        """Return that the model has failed."""
        return Ending(reason, failed=True)


@attrs.define(eq=False)
class Adoption:
    """Takes a server that runs already, of an earlier daemon or of nobody.

    Attributes:
        model: the server's model.
        limits: its grace at the end.
        place: where it runs.
        handle: what it is found by.
        log_file: the file that it writes to.
        at: the model's state.
        wanted: what others want of the model.
        actions: returns what can be done to the server.
        asleep: whether it sleeps; None if that must be asked.
        whose: where it comes from, in words.
        moved: called with the model and the address where its server runs.
        stood: its state when its daemon ended, if it was on its way to another.
    """

    model: Model
    limits: Limits
    place: Place
    handle: Handle
    log_file: Path | None
    at: Standing
    wanted: Wanted
    actions: Callable[[RunningServer], Actions]
    asleep: bool | None
    whose: str
    moved: Callable[[Model], None]
    stood: State | None = None

    @asynccontextmanager
    async def server(self, hear: Hear) -> AsyncIterator[RunningServer]:
        """Own it, if it is still there."""
        if self.model.holding:  # no other model must take its room while it is looked for
            self.at.step(Event.QUEUE)
            self.at.note_queue(Queue("llamadoze takes over its server of the earlier llamadoze"))
        order = Order(
            model=self.model,
            limits=self.limits,
            env=environment_of(self.model),
            hear=hear,
            log_file=self.log_file,
        )
        async with self.place.take_over(order, self.handle) as server:
            if server.landing and self.model.on_landing:
                self.moved(self.model.on_landing(server.landing))
            failure = await self._ask(server)
            if failure is None:
                yield server
        if failure:
            raise CannotRun(f"the server of the earlier llamadoze is not well: {failure}")

    async def _ask(self, server: RunningServer) -> str | None:
        """Find out whether it sleeps, if that is not known; return what is wrong with it."""
        if self.asleep is not None:
            return None
        actions, now = self.actions(server), trio.current_time()
        if self.stood is State.FALLING_ASLEEP:  # its sleep continues, whoever wanted it
            self.asleep = True
            return await actions.prove_asleep(now + self.limits.sleep)
        if self.stood is State.WAKING:
            self.asleep = False
            return await actions.prove_awake(now + self.limits.wake) or await actions.is_well()
        self.asleep = await actions.sleeps_already(self.limits.check)
        return None if self.asleep or server.landing is None else await actions.is_well()

    def announce(self) -> None:
        """Continue in the state that it was in: it serves, or it sleeps."""
        if self.asleep:
            self.wanted.ask(Wish.SLEEP)
            self.at.step(Event.ADOPTED_ASLEEP)
        else:
            self.wanted.ask(Wish.SERVE)
            self.wanted.usage.begin_service()
            self.at.open(Event.ADOPTED_READY)
        self.at.tell("info", f"Adopted {self.whose} ({self.at.state.value})")

    def failed(self, reason: str) -> Ending:
        """Return that nothing is lost: the next request starts the model."""
        self.at.tell("warning", reason)
        return Ending()
