"""What a model server is to everybody but its place: something that runs, ends, and can be weighed.

Owns the two protocols. A *place* starts servers, finds those it has, and takes one over; a
*running server* is one of them, for as long as its block lasts.
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
"""Return what the process tree of a pid holds; the flag says whether of host memory, too."""
Probe = Callable[[Model], Awaitable[str | None]]
"""Ask a model server once; return None if it is ready, else what it said instead."""


class CannotRun(Exception):
    """There is no server; the text says why, in an operator's words."""


class NotWanted(CannotRun):
    """There is no server, as nobody wants it any more."""


class PlaceLost(CannotRun):
    """There is no server, as where it was to run has ended; that is no fault of the model."""


@attrs.frozen
class Left:
    """What is left of a life, and could not be ended.

    Attributes:
        pids: of processes.
        address: where it still answers; nothing if it does not.
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
        ask: how it is asked to end; None is its place's way.
        left: what its end has left; None if nothing, or before.
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
        """What marks the commands that belong to it, in their environment."""

    @property
    def was_there(self) -> bool:
        """Whether it had run before this daemon looked: then it may be asleep."""

    @property
    def was_killed(self) -> bool:
        """Whether its grace passed without its end."""

    @property
    def landing(self) -> Landing | None:
        """Where it has come to run, if its model's address does not say that."""

    async def exited(self) -> int | None:
        """Wait for its end; return its exit status, negative for a signal, if it is known."""

    @property
    def was_displaced(self) -> bool:
        """Whether it has ended because its place did, which is no fault of the model's."""

    def end_told(self, status: int | None) -> str:
        """Say how it has ended, in an operator's words.

        Args:
            status: what `exited` returned.
        """

    async def is_gone(self) -> bool:
        """Whether it is certain that there is no server any more, though no process has ended."""

    async def landed(self) -> str | None:
        """Take note that it answers its check; return why that is not its own answer, or None."""

    @property
    def last_resort(self) -> str:
        """What `end` does, in an operator's words."""

    @property
    def has_ended(self) -> bool:
        """Whether the command that stands for it has ended; what that has started may live."""

    async def end(self) -> None:
        """Ask its place's way, without its `ask`."""

    async def is_still_left(self) -> bool:
        """Whether what its end has left is there yet."""

    @property
    def devices(self) -> Sequence[Reading]:
        """The GPUs of its place that were seen when it was weighed; none of this machine's."""

    async def weigh(self, *, host: bool) -> Held:
        """Return the memory that it holds; nothing of it where that cannot be seen.

        Args:
            host: whether host memory is wanted, too.
        """

    async def root(self) -> int | None:
        """Return the process of this machine whose descendants hold its memory, if it is seen."""

    async def processes(self) -> list[int]:
        """Return its processes on this machine, as far as they can be seen."""

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return the command that runs a command beside it."""

    def cut(self) -> None:
        """Give up the grace, now or when the end comes."""

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
    """What a place needs to have a model's server.

    Attributes:
        model: what to run.
        limits: its grace at the end, among others.
        env: its whole environment.
        hear: called with its output.
        log_file: what it writes to, so that it can outlive the daemon; None is a pipe.
        waits: told why the place cannot start it yet, if it must wait for that.
        begins: called when it can, where it had to wait.
        unwanted: returns when nobody wants the server any more.
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
            taken: returns the ports that others have.
        """

    async def obstacle(self, model: Model) -> str | None:
        """Return why a start would be for nothing, or None."""

    def start(self, order: Order) -> AbstractAsyncContextManager[RunningServer]:
        """Start a server; leaving the block ends it, or lets it go.

        Raises:
            CannotRun: and why.
        """

    def take_over(self, order: Order, handle: Handle) -> AbstractAsyncContextManager[RunningServer]:
        """Own a server that an earlier daemon had; else as `start`.

        Raises:
            CannotRun: it is not there any more.
        """

    async def find(self, model: Model) -> Handle | None:
        """Return a server of the model that runs already and needs nobody to start it."""
