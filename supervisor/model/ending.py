"""How a model's server is asked to end, and what is done about what could not be ended.

Owns the order: its slots are saved, then it is asked by its cmdStop, else by its container's
engine, else by its place. The limits say how long each may take. The place has the grace and the
proof.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import structlog
import trio

from configschema import Model
from supervisor.model.usage import Stir
from supervisor.places.containers import StopCommand, stop_command
from supervisor.places.running import Hear, Left, RunningServer
from supervisor.processes.child import AskToStop
from supervisor.processes.commands import run_told
from supervisor.sleep.actions import Actions, environment_of
from supervisor.sleep.slots import are_kept, stem_of
from supervisor.states.durations import seconds
from supervisor.states.standing import Standing

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.frozen
class StopRequest:
    """The request to end that goes to one server.

    Attributes:
        server: the server that is to end.
        actions: returns what can be done to it, with the present limits.
        at: the model's state.
    """

    server: RunningServer
    actions: Callable[[], Actions]
    at: Standing

    async def make(self) -> None:
        """Ask it to end; use its place's way if there is no stop command, or if that fails.

        It is asked even if its command has ended first: the command's children may live.
        """
        actions = self.actions()
        command = stop_command(actions.model, actions.limits, self.server.pid)
        failure = await actions.run_stop_command(command) if command else None
        if failure and self.server.has_ended:
            self.at.tell("debug", f"{failure}; the process had ended before")
        elif failure:
            self.at.report_failure(failure, self.server.last_resort)
        if failure or command is None:
            await self.server.end()


@attrs.define(eq=False)
class KeptSlots:
    """What llama.cpp's slots hold, kept over the sleeps of one server and beyond its end.

    Attributes:
        server: the server.
        actions: returns what can be done to it, with the present limits.
        stem: the prefix of the files' names; empty while there is nothing to save.
    """

    server: RunningServer
    actions: Callable[[], Actions]
    stem: str = attrs.field(default="", init=False)

    @classmethod
    def of(cls, server: RunningServer, actions: Callable[[], Actions]) -> KeptSlots:
        """Keep a server's slots, and save them also when it is asked to end."""
        kept = cls(server, actions)
        if server.ask is not None:
            server.ask = partial(kept._save_then, server.ask)
        return kept

    async def begin(self) -> None:
        """Save them from now on, in files that are named after the present weights."""
        model = self.actions().model
        self.stem = await stem_of(model) if are_kept(model) else ""

    async def restore(self) -> None:
        """Restore what was last saved, and begin to save the slots."""
        await self.begin()
        if self.stem:
            await self.actions().restore_slots(self.stem)

    async def save(self) -> None:
        """Save them, if there is anything in them."""
        if self.stem and not self.server.has_ended:
            await self.actions().save_slots(self.stem)

    def forget(self) -> None:
        """Take note that nothing is in them: the server sleeps."""
        self.stem = ""

    async def _save_then(self, ask: AskToStop) -> None:
        self.server.ask = ask  # a hurried end asks again, and has no time for slots
        await guarded(self.actions().model.id, self.save)  # even if this fails, the end comes
        await ask()


BETWEEN_LOOKS = 0.5  # seconds between looks whether something is still left
HELD = (
    "Models that need its memory are not started until it is gone. To start them anyway, unload "
    "this model, or set ignoreLeftovers: true"
)


async def until_gone(
    server: RunningServer, at: Standing, stir: Stir, given_up: Callable[[], bool]
) -> None:
    """Wait until nothing is left of a server that could not be ended, and log that something is.

    Args:
        server: the server, which has ended except for what is left.
        at: its model's state.
        stir: called with it, so that no task waits for the end.
        given_up: whether an operator does not want to wait for it.
    """
    at.note_left(_told(server.left, at, HELD))
    stir()
    try:
        while not given_up() and await server.is_still_left():  # noqa: ASYNC110 -- none tells
            await trio.sleep(BETWEEN_LOOKS)
        if not given_up():
            server.left = None
    finally:
        at.note_left("")


def leave_to_the_next(left: Left, at: Standing) -> None:
    """Log that what could not be ended stays in the state file, as the daemon ends."""
    _told(left, at, "The next llamadoze looks for it")


def _told(left: Left | None, at: Standing, what_next: str) -> str:
    if left is None:
        return ""
    text = f"{left} could not be ended: {left.remedy}. {what_next}"
    at.tell("error", text, pids=list(left.pids), address=left.address)
    return str(left)


async def run_alone(command: StopCommand, model: Model, hear: Hear) -> str | None:
    """Run the command that stops a model's server without owning one; return how that failed."""
    with trio.move_on_after(command.limit):
        return await run_told(command.argv, env=environment_of(model), on_output=hear)
    return f"timed out after {seconds(command.limit)}"


async def guarded(model: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work for a model; an internal error in it is logged and ends nothing else."""
    try:
        await work()
    except* Exception:
        log.exception(f"<{model}> Internal error", model=model)
