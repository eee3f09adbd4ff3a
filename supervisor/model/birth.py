"""How a model server comes by its process: it is started, or taken over from an earlier daemon.

Owns both ways, and what is said and done where either fails. What the process is for is the model
server's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from configschema import Limits, Model
from supervisor.model.reasons import Ending
from supervisor.model.resting import Wanted
from supervisor.processes.child import CannotStart, Child, open_child, own
from supervisor.processes.groups import end_group
from supervisor.processes.obstacles import obstacle
from supervisor.processes.output import LogFile
from supervisor.sleep.actions import environment_of
from supervisor.states.durations import seconds
from supervisor.states.standing import Standing
from supervisor.states.table import Event, State, Wish
from supervisor.succession.adopted import is_left_over, recognised
from supervisor.succession.records import Record

Hear = Callable[[bytes], None]


class NoProcess(Exception):
    """There is no process; the text says why, in an operator's words."""


class Birth(Protocol):
    """A way to come by a process."""

    def process(self, hear: Hear) -> AbstractAsyncContextManager[Child]:
        """Have the process for as long as the block lasts; leaving it ends it, or lets it go.

        Args:
            hear: called with its output.

        Raises:
            NoProcess: and why.
        """

    def announce(self) -> None:
        """Say how the process came, and step to where that leaves the model."""

    def failed(self, reason: str) -> Ending:
        """Return what follows if there is no process."""


@attrs.frozen
class Start:
    """A process is started.

    Attributes:
        model: what to run.
        limits: its grace at the end.
        log_file: what it writes to, so that it can outlive the daemon; None is a pipe.
        at: where the model stands.
    """

    model: Model
    limits: Limits
    log_file: Path | None
    at: Standing

    @asynccontextmanager
    async def process(self, hear: Hear) -> AsyncIterator[Child]:
        """Start it, unless that is pointless."""
        self.at.step(Event.START)
        if reason := obstacle(self.model):
            raise NoProcess(reason)
        process = open_child(
            self.model.cmd.argv,
            env=environment_of(self.model),
            on_output=hear,
            grace=self.limits.unload,
            log_file=self._usable_log_file(),
        )
        async with AsyncExitStack() as life:
            try:
                child = await life.enter_async_context(process)
            except CannotStart as error:
                raise NoProcess(f"cmd cannot be started: {error}") from error
            yield child

    def _usable_log_file(self) -> Path | None:
        """Return the log file, or None where there can be none: then a pipe must do."""
        reason = self.log_file and _why_not_writable(self.log_file)
        if reason:
            text = f"Cannot write {self.log_file}: {reason}; the process will not outlive llamadoze"
            self.at.tell("warning", text)
        return None if reason else self.log_file

    def announce(self) -> None:
        """Say how long it has to be ready."""
        limit = self.limits.ready
        self.at.tell("info", f"Starting process (timeout: {seconds(limit)})", timeout_s=limit)

    def failed(self, reason: str) -> Ending:
        """The model has failed."""
        return Ending(reason, failed=True)


@attrs.frozen
class Adoption:
    """A process of an earlier daemon is taken over.

    Attributes:
        record: what is known of it.
        limits: its grace at the end.
        log_file: what it writes to.
        at: where the model stands.
        wanted: what others want of it.
    """

    record: Record
    limits: Limits
    log_file: Path | None
    at: Standing
    wanted: Wanted

    @asynccontextmanager
    async def process(self, hear: Hear) -> AsyncIterator[Child]:
        """Own it, if it is still there."""
        pid, began, log_file = self.record.pid, self.record.started, self.log_file
        with recognised(pid, began) as leader:
            if leader is None or log_file is None:
                if is_left_over(pid, began):
                    # Shielded: nobody would look for it again. Bounded by the grace.
                    with trio.CancelScope(shield=True):
                        await end_group(pid, self.limits.unload, None)
                raise NoProcess("the process of the earlier llamadoze has ended meanwhile")
            async with own(Child(leader, LogFile(log_file), self.limits.unload), hear) as child:
                yield child

    def announce(self) -> None:
        """Go on from where it was: it serves, or it sleeps."""
        if self.record.state == State.READY.value:
            self.wanted.ask(Wish.SERVE)
            self.wanted.usage.restart_idle_time()
            self.at.open(Event.ADOPTED_READY)
        else:
            self.wanted.ask(Wish.SLEEP)
            self.at.step(Event.ADOPTED_ASLEEP)
        self.at.tell("info", f"Adopted process of an earlier llamadoze ({self.at.state.value})")

    def failed(self, reason: str) -> Ending:
        """Nothing is lost: the next request starts the model."""
        self.at.tell("warning", reason)
        return Ending()


def _why_not_writable(log_file: Path) -> str | None:
    try:
        log_file.touch(0o600)
    except OSError as error:
        return error.strerror or str(error)
    return None
