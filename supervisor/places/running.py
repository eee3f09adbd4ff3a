"""What a model server is to everything but its place: it runs, ends, and can be weighed.

Owns the two protocols. A *place* starts servers, finds those it has, and takes one over. A *running
server* is one of them, for as long as its block lasts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from configschema import Landing, Limits, Model
from supervisor.places.handles import Handle
from supervisor.processes.child import AskToStop
from supervisor.processes.memory import Held
from supervisor.room.devices import Reading
from supervisor.states.snapshot import Queue

Hear = Callable[[bytes], None]
Weigh = Callable[[int, bool], Awaitable[Held]]
"""Returns what the process tree of a pid holds; the flag says whether to include host memory."""
Probe = Callable[[Model], Awaitable[str | None]]
"""Asks a model server once; returns None if it is ready, else what it said instead."""


class CannotRun(Exception):
    """There is no server; the text says why, in an operator's words."""


class NotWanted(CannotRun):
    """There is no server, because it is not wanted any more."""


class PlaceLost(CannotRun):
    """There is no server, because its place has ended; that is no fault of the model."""


@attrs.frozen
class Left:
    """What is left of a life and could not be ended.

    Attributes:
        pids: the pids of processes.
        address: where it still answers; empty if it does not.
        remedy: what an operator can do.
    """

    pids: tuple[int, ...] = ()
    address: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        names = ", ".join(map(str, self.pids))
        count = "processes" if len(self.pids) > 1 else "process"
        parts = [f"{count} {names}"] if self.pids else []
        parts += [f"a server that answers at {self.address}"] if self.address else []
        return " and ".join(parts)


class RunningServer(Protocol):
    """A model server that runs.

    Attributes:
        ask: asks it to end; None uses its place's way.
        left: what its end has left; None if nothing is left, or before its end.
    """

    ask: AskToStop | None
    left: Left | None

    @property
    def pid(self) -> int | None:
        """The process of this machine that stands for it; None if there is none."""

    @property
    def handle(self) -> Handle:
        """What another daemon finds it by."""

    @property
    def env(self) -> Mapping[str, str]:
        """The variables that mark its commands, in their environment."""

    @property
    def was_there(self) -> bool:
        """Whether it ran before this daemon looked: then it may be asleep."""

    @property
    def was_killed(self) -> bool:
        """Whether it outlived its grace."""

    @property
    def landing(self) -> Landing | None:
        """Where it runs, if its model's address does not say that."""

    async def exited(self) -> int | None:
        """Wait for its end; return its exit status, negative for a signal, if that is known."""

    @property
    def was_displaced(self) -> bool:
        """Whether it has ended because its place did, which is no fault of the model."""

    def end_told(self, status: int | None) -> str:
        """Say how it has ended, in an operator's words.

        Args:
            status: what `exited` returned.
        """

    async def is_gone(self) -> bool:
        """Whether it is certain that there is no server any more, though no process has ended."""

    async def landed(self) -> str | None:
        """Take note that it answers its check; return why it must not count as ready, or None."""

    @property
    def last_resort(self) -> str:
        """What `end` does, in an operator's words."""

    @property
    def has_ended(self) -> bool:
        """Whether the command that stands for it has ended; that command's children may live."""

    async def end(self) -> None:
        """Ask it to end in its place's way, without its `ask`."""

    async def is_still_left(self) -> bool:
        """Whether what its end has left is still there."""

    @property
    def devices(self) -> Sequence[Reading]:
        """The GPUs of its place that were seen when it was weighed; empty for this machine."""

    async def weigh(self, *, host: bool) -> Held:
        """Return the memory that it holds; None in place of what cannot be seen.

        Args:
            host: whether to measure host memory, too.
        """

    async def root(self) -> int | None:
        """Return the process here whose descendants hold its memory, if that is visible."""

    async def processes(self) -> list[int]:
        """Return its processes on this machine, as far as they are visible."""

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return the command that runs this command beside it."""

    def cut(self) -> None:
        """Cut the grace short, now or when the end begins."""

    @property
    def can_be_let_go(self) -> bool:
        """Whether it would survive its owner."""

    @property
    def is_let_go(self) -> bool:
        """Whether it goes on when its owner ends."""

    def let_go(self) -> None:
        """Let it live on when its owner ends."""


@attrs.frozen(kw_only=True)
class Order:
    """What a place needs to start a model's server.

    Attributes:
        model: what to run.
        limits: its limits, such as its grace at the end.
        env: its whole environment.
        hear: called with its output.
        log_file: the file that it writes to, so that it can outlive the daemon; None uses a pipe.
        waits: called with the reason, if the place cannot start it yet.
        begins: called when the place can start it, if it had to wait.
        unwanted: returns when the server is not wanted any more.
    """

    model: Model
    limits: Limits
    env: Mapping[str, str]
    hear: Hear
    log_file: Path | None = None
    waits: Callable[[Queue], None] = lambda _: None
    begins: Callable[[], None] = lambda: None
    unwanted: Callable[[], Awaitable[None]] = trio.sleep_forever


class Place(Protocol):
    """Where servers run."""

    async def fitted(self, model: Model, taken: Callable[[], set[int]]) -> Model:
        """Return a model as it can be started now: it may need another port.

        Args:
            model: what is to run.
            taken: returns the ports of other models.
        """

    async def obstacle(self, model: Model) -> str | None:
        """Return why a start would be pointless, or None."""

    def start(self, order: Order) -> AbstractAsyncContextManager[RunningServer]:
        """Start a server; leaving the block ends it, or lets it go.

        Raises:
            CannotRun: it cannot run; the text says why.
        """

    def take_over(self, order: Order, handle: Handle) -> AbstractAsyncContextManager[RunningServer]:
        """Own a server that an earlier daemon had; otherwise like `start`.

        Raises:
            CannotRun: it is not there any more.
        """

    async def find(self, model: Model) -> Handle | None:
        """Return a server of the model that runs already, without a start by llamadoze."""
