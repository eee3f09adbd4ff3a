"""A model server that is a process of this machine, or that such a process has started.

Owns whether the server that answers is the model's own, where its memory is, and the proof that
nothing of it is left. `child` ends processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio

from supervisor.places.addresses import (
    Answering,
    listening_for,
    port_of,
    shown_address,
    who_answers,
)
from supervisor.places.containers import is_outside, pid_of_container
from supervisor.places.handles import Handle, HereHandle
from supervisor.places.running import Left, Order, Probe, Weigh
from supervisor.processes.census import TOKEN
from supervisor.processes.child import AskToStop, Child
from supervisor.processes.commands import describe_exit
from supervisor.processes.listeners import holder_anywhere
from supervisor.processes.memory import Held, processes_below

LONGEST_GOODBYE = 5.0  # seconds for an address to fall silent once its processes are gone
BETWEEN_LOOKS = 0.05


@attrs.define(eq=False)
class LocalServer:
    """A process, and the server that it is or has started.

    Attributes:
        child: the process.
        order: what its place was asked for.
        probe: asks a server whether it is ready.
        scales: weighs a process with its kin.
        left: what its end has left.
    """

    child: Child
    order: Order
    probe: Probe
    scales: Weigh
    left: Left | None = attrs.field(default=None, init=False)
    _answering: Answering | None = attrs.field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self.child.pid

    @property
    def handle(self) -> Handle:
        """The process with its start time."""
        return HereHandle.of(self.child.kin)

    @property
    def env(self) -> Mapping[str, str]:
        """The token, if it has one."""
        return {TOKEN: self.child.kin.token} if self.child.kin.token else {}

    @property
    def was_there(self) -> bool:
        """False: it was started for the model, so it begins awake."""
        return False

    @property
    def ask(self) -> AskToStop | None:
        """Asks it to end."""
        return self.child.ask

    @ask.setter
    def ask(self, way: AskToStop | None) -> None:
        self.child.ask = way

    @property
    def was_killed(self) -> bool:
        """Whether it outlived its grace."""
        return self.child.was_killed

    @property
    def landing(self) -> None:
        """None: its model's address says where it is."""

    async def exited(self) -> int | None:
        """Wait for the process to end."""
        return await self.child.exited()

    @property
    def was_displaced(self) -> bool:
        """False: its place does not end."""
        return False

    def end_told(self, status: int | None) -> str:
        """Say how the process ended."""
        return f"process {describe_exit(status)}"

    async def is_gone(self) -> bool:
        """Return False: the end of its process tells."""
        await trio.lowlevel.checkpoint()
        return False

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.child.has_ended

    @property
    def last_resort(self) -> str:
        """What `end` does."""
        return "sending SIGTERM"

    async def end(self) -> None:
        """Send SIGTERM to all that belongs to the process."""
        await self.child.terminate()

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return it as it is: it runs on this machine, too."""
        return argv

    def cut(self) -> None:
        """Cut the grace short."""
        self.child.cut()

    @property
    def can_be_let_go(self) -> bool:
        """Whether it writes to a file."""
        return self.child.can_be_let_go

    @property
    def is_let_go(self) -> bool:
        """Whether it goes on when its owner ends."""
        return self.child.is_let_go

    def let_go(self) -> None:
        """Let it live on."""
        self.child.let_go()

    async def landed(self) -> str | None:
        """Check which process listens where the check was answered: the model's, or another."""
        self._answering = found = await who_answers(
            self.order.model, await self.child.kin.members()
        )
        who = await holder_anywhere(found.foreign) if found.foreign else ""
        if not who:  # the holder is not visible, so nothing speaks against it
            return None
        port = port_of(self.order.model)
        return (
            f"port {port} is answered by {who}, which is not a process of the model; "
            "end that process"
        )

    @property
    def devices(self) -> tuple[()]:
        """Empty: this machine's GPUs are seen without it."""
        return ()

    async def weigh(self, *, host: bool) -> Held:
        """Weigh the process with its kin, if the server is one of them; else the container."""
        root = await self.root()
        return Held() if root is None else await self.scales(root, host)

    async def processes(self) -> list[int]:
        """Return the process with its kin, or the processes of the container."""
        return await processes_below(await self.root() or self.child.pid)

    async def root(self) -> int | None:
        """Return its own process, or the first process of the container."""
        if self._answering is None or not self._answering.is_outside:
            return self.child.pid
        return await pid_of_container(self.order.model, self.order.env)

    async def prove_its_end(self) -> None:
        """Look for what is left of it; bounded, and shielded, as nothing else would look again."""
        if self.child.is_let_go:
            return
        with trio.CancelScope(shield=True):
            if self._answering is None and is_outside(self.order.model):
                # It was not ready yet; its port was free when it was started.
                self._answering = await who_answers(self.order.model, [])
            address = await self._goodbye()
            if self.child.left or address:
                self.left = Left(self.child.left, address, ANSWERS if address else STUCK)

    async def is_still_left(self) -> bool:
        """Whether what its end has left is still there."""
        return bool(await self.child.kin.members()) or await self._answers()

    async def _goodbye(self) -> str:
        """Return where it answers though its processes are gone; empty if it does not answer."""
        with trio.move_on_after(LONGEST_GOODBYE):
            while await self._answers():  # noqa: ASYNC110 -- nothing tells of another's end
                await trio.sleep(BETWEEN_LOOKS)
            return ""
        return shown_address(self.order.model)

    async def _answers(self) -> bool:
        """Whether a server outside of the process is there: its socket exists, or it answers."""
        found = self._answering
        if found is None or not (found.is_outside and found.is_ours):
            return False
        if found.sockets:
            listening = await listening_for(self.order.model) or []
            return any(one.inode in found.sockets for one in listening)
        with trio.move_on_after(LONGEST_GOODBYE):
            return await self.probe(self.order.model) is None
        return False


STUCK = (
    "it hangs in the kernel and may hold its memory (look at its driver, dmesg), or it belongs to "
    "another user, who must end it"
)
ANSWERS = "end it by hand, and give the model a cmdStop that does"
