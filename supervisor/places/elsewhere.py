"""Model servers that live without llamadoze: a command only starts them, or somebody else does.

Owns how such a server is found, started and seen gone: it lives while it answers its check. Without
a command that stops it, it is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from configschema import Model, is_reachable
from supervisor.places.addresses import listening_for, shown_address
from supervisor.places.containers import pid_of_container
from supervisor.places.handles import ElsewhereHandle, Handle
from supervisor.places.running import CannotRun, Left, Order, Probe, RunningServer, Weigh
from supervisor.processes.child import HASTE, AskToStop, CannotStart, Child, open_child
from supervisor.processes.commands import describe_exit
from supervisor.processes.memory import Held, processes_below, weigh

LONGEST_LOOK = 2.0  # seconds for a running server to answer its check
BETWEEN_LOOKS = 0.1
ANSWERS = "it was asked to stop and did not; end it by hand"


@attrs.frozen
class Elsewhere:
    """Wherever a model's address leads to.

    Attributes:
        probe: asks a server whether it is ready.
        scales: weighs a process with its kin.
    """

    probe: Probe
    scales: Weigh = weigh

    async def fitted(self, model: Model, taken: Callable[[], set[int]]) -> Model:
        """Leave the model as it is: its server owns the port."""
        await trio.lowlevel.checkpoint()
        return model

    async def obstacle(self, model: Model) -> str | None:
        """Return what is missing, or None."""
        await trio.lowlevel.checkpoint()
        if not is_reachable(model.proxy):
            return "proxy leads nowhere: it must be an address such as http://127.0.0.1:8000"
        return None

    @asynccontextmanager
    async def start(self, order: Order) -> AsyncIterator[RunningServer]:
        """Take the server that runs already; otherwise run the command that starts one."""
        if await self.find(order.model) or not order.model.cmd:
            async with self.take_over(order, ElsewhereHandle()) as server:
                yield server
            return
        started = ServerElsewhere(order, self.probe, self.scales, was_there=False)
        command = open_child(
            order.model.cmd.argv,
            env=order.env,
            on_output=order.hear,
            grace=order.limits.unload,
            log_file=order.log_file,
        )
        try:
            async with command as started.command_process, _ended(started):
                yield started
        except CannotStart as error:
            raise CannotRun(f"cmd cannot be started: {error}") from error

    @asynccontextmanager
    async def take_over(self, order: Order, _: Handle) -> AsyncIterator[RunningServer]:
        """Take the server that runs already."""
        server = ServerElsewhere(order, self.probe, self.scales, was_there=True)
        async with _ended(server):
            yield server

    async def find(self, model: Model) -> Handle | None:
        """Ask at the model's address."""
        if not is_reachable(model.proxy) or model.check_endpoint == "none":
            return None
        with trio.move_on_after(LONGEST_LOOK):
            return ElsewhereHandle() if await self.probe(model) is None else None
        return None


@asynccontextmanager
async def _ended(server: ServerElsewhere) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if not server.is_let_go:
            # Shielded: the server must be gone before its owner is. Its limits bound this.
            with trio.CancelScope(shield=True):
                await server.finish()
        server.spare_what_was_started()


@attrs.define(eq=False)
class ServerElsewhere:
    """A server that lives without llamadoze.

    Attributes:
        order: what its place was asked for.
        probe: asks a server whether it is ready.
        scales: weighs a process with its kin.
        was_there: whether it ran before this daemon looked.
        ask: asks it to end; None leaves it alone.
        is_let_go: whether it goes on when its owner ends.
        left: what its end has left.
        command_process: the command that was started for it, while its block lasts.
    """

    order: Order
    probe: Probe
    scales: Weigh
    was_there: bool
    ask: AskToStop | None = attrs.field(default=None, init=False)
    is_let_go: bool = attrs.field(default=False, init=False)
    was_killed: bool = attrs.field(default=False, init=False)
    left: Left | None = attrs.field(default=None, init=False)
    command_process: Child | None = attrs.field(default=None, init=False)
    _has_landed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _was_listening: bool | None = attrs.field(default=None, init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def pid(self) -> int | None:
        """None: no process of this machine stands for it."""
        return None

    @property
    def handle(self) -> Handle:
        """Its model's address is enough, but the command must be found if it stays."""
        kin = self.command_process.kin if self.command_process else None
        return ElsewhereHandle(kin.leader, kin.started) if kin else ElsewhereHandle()

    @property
    def env(self) -> Mapping[str, str]:
        """Empty: its commands are not part of it."""
        return {}

    @property
    def landing(self) -> None:
        """None: its model's address says where it is."""

    @property
    def was_displaced(self) -> bool:
        """False: its place does not end."""
        return False

    def end_told(self, status: int | None) -> str:
        """Say how the command ended."""
        return f"process {describe_exit(status)}"

    async def exited(self) -> int | None:
        """Wait for the command to fail before the server answers; later only a check can tell."""
        if self.command_process is not None:
            status = await self.command_process.exited()
            # A program that listens there was there before, and still loads.
            if status and not self._has_landed.is_set() and not await self._is_listening():
                return status
        await trio.sleep_forever()
        raise AssertionError("nothing wakes it")  # for the type checker

    async def is_gone(self) -> bool:
        """Whether nothing listens at its address any more, if a listener was visible before.

        A container engine may lead to its containers without listening itself.
        """
        return bool(self._was_listening) and await self._is_listening() is False

    async def _is_listening(self) -> bool | None:
        """Whether something listens at its address; None if that is on another machine."""
        found = await listening_for(self.order.model)
        return None if found is None else bool(found)

    async def landed(self) -> str | None:
        """Take note that it answers: whatever answers there is the server."""
        self._has_landed.set()
        self._was_listening = await self._is_listening()
        return None

    @property
    def devices(self) -> tuple[()]:
        """Empty: this machine's GPUs are seen without it."""
        return ()

    async def weigh(self, *, host: bool) -> Held:
        """Weigh its container, if an engine of this machine names the first process."""
        root = await self.root()
        return Held() if root is None else await self.scales(root, host)

    async def root(self) -> int | None:
        """Return the first process of its container, if an engine of this machine names it."""
        return await pid_of_container(self.order.model, self.order.env)

    async def processes(self) -> list[int]:
        """Return the processes of its container."""
        root = await self.root()
        return [] if root is None else await processes_below(root)

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return it as it is: it runs on this machine."""
        return argv

    def cut(self) -> None:
        """Stop waiting for its end."""
        self._patience.cancel()
        if self.command_process is not None:
            self.command_process.cut()

    @property
    def can_be_let_go(self) -> bool:
        """True: it does not need the daemon."""
        return True

    def let_go(self) -> None:
        """Let it live on; the command that started it ends, as it is not the server."""
        self.is_let_go = True

    @property
    def last_resort(self) -> str:
        """Leave it: no command says how to end it."""
        return "leaving the server as it is"

    @property
    def has_ended(self) -> bool:
        """False: no command stands for it."""
        return False

    async def end(self) -> None:
        """Leave it alone: no command says how to end it."""
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Ask it to end, if there is a command for that, and wait until it does not answer."""
        if self.ask is None:
            return
        is_asked = False
        with self._patience:
            await self.ask()
            is_asked = True
            if not await self._falls_silent():
                self.left = Left((), shown_address(self.order.model), ANSWERS)
        if not is_asked:
            with trio.move_on_after(HASTE):
                await self.ask()

    def spare_what_was_started(self) -> None:
        """Let the children of a command that has ended live on: they are the server."""
        if self.command_process is not None and self.command_process.has_ended:
            self.command_process.let_go()

    async def is_still_left(self) -> bool:
        """Whether it still answers."""
        return await self._answers()

    async def _falls_silent(self) -> bool:
        with trio.move_on_after(self.order.limits.unload):
            while await self._answers():  # noqa: ASYNC110 -- nothing tells of another's end
                await trio.sleep(BETWEEN_LOOKS)
            return True
        return False

    async def _answers(self) -> bool:
        if self.order.model.check_endpoint == "none":
            return False
        with trio.move_on_after(LONGEST_LOOK):
            return await self.probe(self.order.model) is None
        return False
