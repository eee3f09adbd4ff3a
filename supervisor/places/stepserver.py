"""A model server that is a step of a job in a cluster, reached through its launcher on the node.

Owns how its end is requested, seen and proved. If Slurm does not answer, that is no end. If nothing
is heard from the node for long, that is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from configschema import Holding, Landing
from supervisor.clusters import slurm
from supervisor.clusters.control import Control, NotReached
from supervisor.clusters.keeper import Keeper
from supervisor.clusters.launching import beside_command
from supervisor.clusters.slurm import NotAnswered
from supervisor.clusters.surveying import device_named
from supervisor.places.handles import Handle, StepHandle
from supervisor.places.running import Left, Order
from supervisor.processes.child import AskToStop, Child
from supervisor.processes.commands import describe_exit
from supervisor.processes.memory import Held
from supervisor.room.devices import Reading
from supervisor.states.racing import race

BETWEEN_ATTEMPTS = 0.5  # seconds
ATTEMPTS_TO_END = 3
LONGEST_ABSENCE = 20.0  # seconds without a launcher, though Slurm does not say that it is gone
FAREWELL = 3.0  # seconds beyond the grace for a launcher to report the end
LONGEST_DEATH = 60.0  # seconds for Slurm to end a step after SIGKILL
REMEDY = "Slurm was told to end it: look at its node (scontrol show node), or run scancel"


@attrs.define(eq=False)
class StepServer:
    """A step, and the server in it.

    Attributes:
        order: what its place was asked for.
        known: what it is found by.
        holding: the holding of its job.
        keeper: the keeper of its cluster.
        control: the connection to its launcher.
        srun: the process that has started it, if that lives.
        ask: asks it to end; None uses the launcher's way.
        left: what its end has left.
        devices: the GPUs of its job, as they were seen when it was weighed.
    """

    order: Order
    known: StepHandle
    holding: Holding
    keeper: Keeper
    control: Control = attrs.field(init=False)
    srun: Child | None = None
    ask: AskToStop | None = attrs.field(default=None, init=False)
    left: Left | None = attrs.field(default=None, init=False)
    is_let_go: bool = attrs.field(default=False, init=False)
    was_killed: bool = attrs.field(default=False, init=False)
    devices: Sequence[Reading] = attrs.field(default=(), init=False)
    _has_ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _why: str = attrs.field(default="", init=False)
    _is_lost: bool = attrs.field(default=False, init=False)
    _is_told: bool = attrs.field(default=False, init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _touch: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )

    @control.default
    def _not_connected_yet(self) -> Control:
        return Control(self.known.landing.entrance, self._hear_notice)

    @property
    def pid(self) -> int | None:
        """None: no process of this machine stands for it."""
        return None

    @property
    def handle(self) -> Handle:
        """The step's handle."""
        return self.known

    @property
    def landing(self) -> Landing:
        """Where it listens on its node, and the way there."""
        return self.known.landing

    @property
    def env(self) -> Mapping[str, str]:
        """Empty: its commands run on its node."""
        return {}

    @property
    def was_there(self) -> bool:
        """False: it was started for the model, so it begins awake."""
        return False

    # How its end is seen.

    async def watch(self) -> None:
        """Stay in touch with its launcher until the server has ended, or `finish` returns."""
        # Shielded: its end is requested and seen this way, whatever is cancelled.
        with self._touch:
            await self._stay_in_touch()

    async def _stay_in_touch(self) -> None:
        while not self._has_ended.is_set():
            was_connected = await race(self._connected, self.control.has_exited.wait)
            if self.control.has_exited.is_set():
                self._note_end("")
            elif was_connected:
                continue  # Slurm may take long to answer, and the launcher may be there
            elif await self._is_gone():
                self._note_end(self.keeper.end_of(self.known.job) or self._gone())
            elif trio.current_time() - self.control.heard_at > LONGEST_ABSENCE:
                self.keeper.must_leave(self.holding, self.known.job)
                self._is_lost = True
                self._note_end(self._unheard())
            await trio.sleep(BETWEEN_ATTEMPTS)

    async def _connected(self) -> bool:
        """Stay connected for as long as that lasts; return whether a connection was made."""
        try:
            await self.control.run()
        except (OSError, trio.TooSlowError):
            return False
        await trio.sleep(BETWEEN_ATTEMPTS)
        return True

    async def _is_gone(self) -> bool:
        """Whether Slurm says that the step is gone; without an answer, it is not."""
        try:
            is_there = any(one.name == self.known.token for one in await slurm.steps())
        except NotAnswered:
            return False
        if not is_there:
            await self.keeper.looked()  # learns how its job ended, if it did
        return not is_there

    def _note_end(self, why: str) -> None:
        self._why = why
        self._has_ended.set()

    def _gone(self) -> str:
        return f"its step {self.known.step} on {self.known.node} was ended"

    def _unheard(self) -> str:
        node, limit = self.known.node, f"{LONGEST_ABSENCE:g}s"
        return (
            f"nothing was heard from its node {node} for {limit}; "
            f"llamadoze leaves job {self.known.job}"
        )

    def _hear_notice(self) -> None:
        self._is_told = True
        self.keeper.must_leave(self.holding, self.known.job)

    async def exited(self) -> int | None:
        """Wait for the end of the server, or of its step."""
        await self._has_ended.wait()
        return self.control.exited

    @property
    def was_displaced(self) -> bool:
        """Whether Slurm has ended its job, or told it to end."""
        return self._is_told or self.keeper.has_displaced(self.known.job)

    def end_told(self, status: int | None) -> str:
        """Say how it ended, in Slurm's words if Slurm has ended it."""
        if self._is_told and not self._why:
            return f"Slurm told its job {self.known.job} to end, and the server did"
        return self._why or f"process {describe_exit(status)}"

    async def is_gone(self) -> bool:
        """Return False: its launcher reports its end."""
        await trio.lowlevel.checkpoint()
        return False

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended."""
        return self._has_ended.is_set()

    # How its end is requested.

    @property
    def last_resort(self) -> str:
        """What `end` does."""
        return "sending SIGTERM"

    async def end(self) -> None:
        """Let the launcher send SIGTERM, or Slurm if the launcher is not reached."""
        for _ in range(ATTEMPTS_TO_END):  # the connection may be restored
            try:
                await self.control.ask("end", grace=self.order.limits.unload)
            except NotReached:
                await trio.sleep(BETWEEN_ATTEMPTS)
            else:
                return
        await self._cancel("TERM")

    async def _cancel(self, signal: str) -> None:
        try:
            await slurm.cancel([self.known.step], signal)
        except NotAnswered as error:
            text = f"Slurm does not end step {self.known.step}: {error}\n"
            self.order.hear(text.encode())

    def leave(self) -> None:
        """Stop staying in touch."""
        self.keeper.tokens.discard(f"{self.known.token}.command")
        self._touch.cancel()

    async def finish(self) -> None:
        """End it, and wait until it has ended; do not cancel."""
        if not self._has_ended.is_set():
            with self._patience:
                await (self.ask() if self.ask else self.end())
                more = 0 if self.ask else FAREWELL  # time in which the launcher kills
                with trio.move_on_after(self.order.limits.unload + more) as grace:
                    await self._has_ended.wait()
                self.was_killed = grace.cancelled_caught
        if self.control.has_exited.is_set():
            return
        await self._cancel("KILL")
        if self._is_lost:
            return  # its job is given back, and nothing else can be on its GPU
        with trio.move_on_after(LONGEST_DEATH) as death:
            while not await self._is_gone():  # noqa: ASYNC110 -- nothing tells of that
                await trio.sleep(BETWEEN_ATTEMPTS)
        if death.cancelled_caught:
            where = f"step {self.known.step} of {self.known.node}"
            self.left = Left((), where, REMEDY)

    def cut(self) -> None:
        """Cut the grace short."""
        self._patience.cancel()

    @property
    def can_be_let_go(self) -> bool:
        """Whether its output goes to a file; with a pipe it would end with the daemon."""
        return self.srun is None or self.srun.can_be_let_go

    def let_go(self) -> None:
        """Let it live on, with its job."""
        self.is_let_go = True
        self.keeper.spare(self.holding, self.known.job)
        if self.srun is not None:
            self.srun.let_go()

    async def is_still_left(self) -> bool:
        """Whether its step is still there."""
        return not await self._is_gone()

    # Questions meanwhile.

    async def landed(self) -> str | None:
        """Ask the launcher whether the model's own server listens there."""
        try:
            is_own = await self.control.ask("own")
        except NotReached:
            return None  # nothing speaks against it
        if is_own is not False:
            return None
        port, node = self.known.port, self.known.node
        return (
            f"port {port} of {node} is answered by a process that is not the model's; "
            "end that process"
        )

    async def weigh(self, *, host: bool) -> Held:
        """Let the launcher weigh its processes."""
        try:
            told = await self.control.ask("weigh")
        except NotReached:
            return Held()
        self.devices = [_reading(number, one) for number, one in enumerate(told.get("devices", ()))]
        names = frozenset(one.device.name for one in self.devices)
        self.keeper.claim(self.holding).gpus[self.known.job] = names
        by_gpu: Mapping[str, int] = told.get("held", {})
        gpu = sum(by_gpu.values()) if "held" in told else None
        own = {"host": told["host"], "own": told["own"]} if host else {}
        return Held(gpu=gpu, by_gpu=by_gpu, **own)

    async def root(self) -> int | None:
        """Return None: its processes are on another machine."""
        await trio.lowlevel.checkpoint()
        return None

    async def processes(self) -> list[int]:
        """Return nothing: its processes are on another machine."""
        await trio.lowlevel.checkpoint()
        return []

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return the command that runs it on the node, in the job."""
        name = f"{self.known.token}.command"  # finds a command that outlives its timeout
        self.keeper.tokens.add(name)
        return beside_command(self.holding, self.known.job, self.known.node, name, argv)


def _reading(number: int, told: Mapping[str, Any]) -> Reading:
    """Return a GPU as a launcher reports it."""
    device = device_named(told["uuid"], number, told["name"], told["total"])
    return Reading(device=device, used=told["used"], held={})
