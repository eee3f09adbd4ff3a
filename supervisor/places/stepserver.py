"""A model server that is a step of a job in a cluster, led to by its launcher on the node.

Owns how its end is asked for, seen and proved. That an engine does not answer is no end; that
nothing is heard from the node for long is one.
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
FAREWELL = 3.0  # seconds beyond its grace that a launcher has to say that it is over
LONGEST_DEATH = 60.0  # seconds for Slurm to end a step that was told to end by SIGKILL
REMEDY = "Slurm was told to end it: look at its node (scontrol show node), or run scancel"


@attrs.define(eq=False)
class StepServer:
    """A step, and the server in it.

    Attributes:
        order: what was wanted of its place.
        known: what it is found by.
        holding: what its job is of.
        keeper: of its cluster.
        control: the connection to its launcher.
        srun: the process that has started it, where that lives.
        ask: how it is asked to end; None is the launcher's way.
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
        """The step."""
        return self.known

    @property
    def landing(self) -> Landing:
        """Where it is on its node, and the way there."""
        return self.known.landing

    @property
    def env(self) -> Mapping[str, str]:
        """Nothing: its commands run on its node."""
        return {}

    @property
    def was_there(self) -> bool:
        """It was started for the model, so it begins awake."""
        return False

    # Its end, as it is seen.

    async def watch(self) -> None:
        """Stay in touch with its launcher until the server has ended, or `finish` has."""
        # Shielded: its end is asked for and seen this way, whoever is cancelled.
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
        """Be connected for as long as that lasts; return whether it came to be."""
        try:
            await self.control.run()
        except (OSError, trio.TooSlowError):
            return False
        await trio.sleep(BETWEEN_ATTEMPTS)
        return True

    async def _is_gone(self) -> bool:
        """Whether Slurm says that there is no such step any more; what it does not say is no."""
        try:
            is_there = any(one.name == self.known.token for one in await slurm.steps())
        except NotAnswered:
            return False
        if not is_there:
            await self.keeper.looked()  # how its job ended, if it did
        return not is_there

    def _note_end(self, why: str) -> None:
        self._why = why
        self._has_ended.set()

    def _gone(self) -> str:
        return f"its step {self.known.step} on {self.known.node} was ended"

    def _unheard(self) -> str:
        node, limit = self.known.node, f"{LONGEST_ABSENCE:g}s"
        return f"nothing was heard from its node {node} for {limit}; job {self.known.job} is left"

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
        """Say how it ended, in Slurm's words where that has ended it."""
        if self._is_told and not self._why:
            return f"Slurm told its job {self.known.job} to end, and the server did"
        return self._why or f"process {describe_exit(status)}"

    async def is_gone(self) -> bool:
        """Its launcher tells of its end."""
        await trio.lowlevel.checkpoint()
        return False

    @property
    def has_ended(self) -> bool:
        """Whether the server has."""
        return self._has_ended.is_set()

    # Its end, as it is asked for.

    @property
    def last_resort(self) -> str:
        """Its launcher can do that."""
        return "sending SIGTERM"

    async def end(self) -> None:
        """Let the launcher send SIGTERM, or Slurm where it is not reached."""
        for _ in range(ATTEMPTS_TO_END):  # the connection may be made anew
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
        """Stay in touch no longer."""
        self.keeper.tokens.discard(f"{self.known.token}.command")
        self._touch.cancel()

    async def finish(self) -> None:
        """End it, and see that it has; do not cancel."""
        if not self._has_ended.is_set():
            with self._patience:
                await (self.ask() if self.ask else self.end())
                more = 0 if self.ask else FAREWELL  # in which the launcher kills
                with trio.move_on_after(self.order.limits.unload + more) as grace:
                    await self._has_ended.wait()
                self.was_killed = grace.cancelled_caught
        if self.control.has_exited.is_set():
            return
        await self._cancel("KILL")
        if self._is_lost:
            return  # its job is given back, and nobody else can be on its GPU
        with trio.move_on_after(LONGEST_DEATH) as death:
            while not await self._is_gone():  # noqa: ASYNC110 -- nothing tells of that
                await trio.sleep(BETWEEN_ATTEMPTS)
        if death.cancelled_caught:
            where = f"step {self.known.step} of {self.known.node}"
            self.left = Left((), where, REMEDY)

    def cut(self) -> None:
        """Give up the grace."""
        self._patience.cancel()

    @property
    def can_be_let_go(self) -> bool:
        """Whether what it writes goes to a file; through a pipe it would end with the daemon."""
        return self.srun is None or self.srun.can_be_let_go

    def let_go(self) -> None:
        """Let it live on, with its job."""
        self.is_let_go = True
        self.keeper.spare(self.holding, self.known.job)
        if self.srun is not None:
            self.srun.let_go()

    async def is_still_left(self) -> bool:
        """Whether its step is there yet."""
        return not await self._is_gone()

    # What is asked meanwhile.

    async def landed(self) -> str | None:
        """Ask the launcher whether it is the model's own server that listens there."""
        try:
            is_own = await self.control.ask("own")
        except NotReached:
            return None  # nothing is known against it
        if is_own is not False:
            return None
        port, node = self.known.port, self.known.node
        return f"port {port} of {node} is answered by another process than the model's; end that"

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
        """Return nothing: its processes are of another machine."""
        await trio.lowlevel.checkpoint()
        return None

    async def processes(self) -> list[int]:
        """Return nothing, for the same reason."""
        await trio.lowlevel.checkpoint()
        return []

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Run it on the node, in the job."""
        name = f"{self.known.token}.command"  # one that outlives its time is found by that
        self.keeper.tokens.add(name)
        return beside_command(self.holding, self.known.job, self.known.node, name, argv)


def _reading(number: int, told: Mapping[str, Any]) -> Reading:
    """Return a GPU as a launcher tells of it."""
    device = device_named(told["uuid"], number, told["name"], told["total"])
    return Reading(device=device, used=told["used"], held={})
