"""Measures the machine's memory if memory decides who runs, and learns what models hold of it.

Owns when it is measured: after each step that changes it, before a decision if the last look is
old, and at intervals while models are used. `turns` decides what follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from pathlib import Path

import attrs
import structlog
import trio

from configschema import MemoryRules, Model
from supervisor.model.server import ModelServer
from supervisor.processes.census import environment_of
from supervisor.processes.memory import Held
from supervisor.processes.survey import Survey, survey
from supervisor.room.choice import environment_for, said_by
from supervisor.room.devices import Device, Reading, matching
from supervisor.room.ledger import amounts_of, rest_of
from supervisor.room.roots import Roots
from supervisor.room.space import HOST, Space
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import ENDED, HOLDS_MEMORY, IN_MOTION, State

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

GIB, MIB = 1 << 30, 1 << 20
FRESH = 1.0  # seconds for which strangers are assumed to hold what they held
LOOKS_EVERY = 2.0  # seconds between looks while models are used, which may grow
LONGEST_LOOK = 5.0  # seconds; a driver may hang
UNKNOWN_SIZE = 1 << 60  # bytes
LITTLE = 64 * MIB  # on a GPU: less than a context of CUDA
MOST_OF_A_DRIVER = 1 * GIB  # more than what a driver itself takes of a GPU
LEFT_TO_THE_HOST = 0.05  # share of host memory, if no key says how much models may use

Take = Callable[[Mapping[str, int]], Awaitable[Survey]]


@attrs.define(eq=False)
class RoomKeeper:
    """The memory that there is, and what each model holds of it.

    Attributes:
        servers: all model servers by id.
        rules: what models may use; None if another rule decides who runs.
        on_look: called after each look.
        take: takes a look.
        space: the memory as it was last seen.
    """

    servers: Mapping[str, ModelServer]
    rules: MemoryRules | None
    on_look: Callable[[], None] = lambda: None
    take: Take = survey
    space: Space = attrs.field(factory=lambda: Space(whole={}), init=False)
    _devices: Sequence[Device] = attrs.field(default=(), init=False)
    _vendors: set[str] = attrs.field(factory=set, init=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changed_at: float = attrs.field(default=0.0, init=False)
    _began_at: float = attrs.field(default=-inf, init=False)  # of the last look, which may be long
    _ended_at: float = attrs.field(default=-inf, init=False)
    _is_stuck: bool = attrs.field(default=False, init=False)
    _roots: Roots = attrs.field(init=False)
    _heeded: dict[str, tuple[Model, object]] = attrs.field(factory=dict, init=False)
    _unknown: set[tuple[str, str]] = attrs.field(factory=set, init=False)

    @_roots.default
    def _new_roots(self) -> Roots:
        return Roots(self.servers)

    @property
    def is_fresh(self) -> bool:
        """Whether the last look is still valid."""
        if self._is_stuck and self._has_seen:
            return True  # a driver hangs: the last measurements must do
        if self._began_at < self._changed_at or not self._has_seen:
            return False
        counts_strangers = self.space.gpus or (self.rules and self.rules.host_memory is None)
        return not counts_strangers or trio.current_time() - self._ended_at <= FRESH

    @property
    def _has_seen(self) -> bool:
        return bool(self.space.whole)

    def refresh(self) -> None:
        """Ask for a look soon."""
        self._wanted.set()

    def used(self) -> None:
        """Take note that a model is used, and may grow."""
        if self.rules is not None and trio.current_time() - self._ended_at > LOOKS_EVERY:
            self.refresh()

    def change(self, rules: MemoryRules | None) -> None:
        """Apply other rules; no decision uses them before the next look."""
        self.rules, self._changed_at = rules, trio.current_time()
        self._unknown.clear()
        self.refresh()

    def changed(self, server: ModelServer) -> None:
        """Take note that a model has taken memory, or freed some."""
        if self.rules is None or server.at.state not in (State.READY, State.ASLEEP, *ENDED):
            return
        if server.at.state is State.READY:  # the memory that it had was enough
            server.known.footprint = server.known.footprint.was_enough()
        self._changed_at = trio.current_time()
        self.refresh()

    async def run(self) -> None:
        """Look whenever a look is wanted, for as long as the daemon runs."""
        self.refresh()  # after an internal error, requests may still wait for the failed look
        while True:
            with trio.move_on_after(self._pause()):
                await self._wanted.wait()
            self._wanted = trio.Event()
            if self.rules is not None:
                await self._look(self.rules)
                self.on_look()
            if self._is_stuck:
                await trio.sleep(LOOKS_EVERY)

    def _pause(self) -> float:
        used = any(one.usage.in_flight for one in self.servers.values())
        return LOOKS_EVERY if self.rules is not None and (used or self._is_stuck) else inf

    async def _look(self, rules: MemoryRules) -> None:
        began = trio.current_time()
        seen = await self.seen()
        if seen is not None:
            self._note(seen, rules)
        elif not self._is_stuck:
            log.warning(
                "Memory cannot be measured: a driver does not answer. llamadoze goes on with the "
                "last measurements; check dmesg and nvidia-smi"
            )
        if seen is None and not self._has_seen:
            self.space = Space(whole={HOST: UNKNOWN_SIZE})  # so that a model can run at all
        self._is_stuck = seen is None
        self._began_at, self._ended_at = began, trio.current_time()

    async def seen(self) -> Survey | None:
        """Take a look; return None if it takes too long, or all known GPUs are gone."""
        roots = await self._roots.now()
        with trio.move_on_after(LONGEST_LOOK):
            seen = await self.take(roots)
            is_blind = (self._devices and not seen.readings) or (roots and not seen.held)
            return None if is_blind else seen
        return None

    # What was seen.

    def _note(self, seen: Survey, rules: MemoryRules) -> None:
        self._vendors = {one.device.vendor for one in seen.readings}
        readings = [_as_told(one, seen) for one in self._allowed(seen, rules)]
        self._devices = [one.device for one in readings]
        telling = {one.device.name for one in readings if one.held is not None}
        for name, server in self.servers.items():
            self._note_wishes(server)
            if held := seen.held.get(name):
                self._learn(server, held, telling)
        self.space = self._space(seen, readings, rules)

    def _allowed(self, seen: Survey, rules: MemoryRules) -> Sequence[Reading]:
        """Return the GPUs that models may use; log once which of the named GPUs are missing."""
        if not rules.gpus:
            return seen.readings
        everywhere = [one.device for one in seen.readings]
        named = {text: matching(everywhere, text) for text in rules.gpus}
        for text, found in named.items():
            if found is None and ("", text) not in self._unknown:
                self._unknown.add(("", text))
                log.warning(
                    f"No GPU is called '{text}' (settings.memory.gpus). Models get the other GPUs "
                    "named there, or none; nvidia-smi -L lists the names"
                )
        return [one for one in seen.readings if one.device in named.values()]

    def _learn(self, server: ModelServer, held: Held, telling: set[str]) -> None:
        """Add what a model holds now to what is known of it."""
        known, state = server.known, server.at.state
        names = [one.name for one in self._devices]
        seen_on = tuple(gpu for gpu in names if held.by_gpu.get(gpu, 0) >= LITTLE)
        if seen_on and not set(seen_on) <= set(known.gpus) and state is not State.STARTING:
            known.gpus = seen_on  # whatever was chosen for it
        elif not known.gpus and state is State.ASLEEP:
            known.gpus = self._told(server)
        is_seen = bool(telling) and telling.issuperset(known.gpus)
        gpus = [held.by_gpu.get(gpu, 0) for gpu in known.gpus] if is_seen else None
        if state is State.READY:
            known.footprint = known.footprint.held_awake(gpus, held.host)
        elif state is State.ASLEEP:
            trend = round(max((one.trend for one in server.sleeping.histories.values()), default=0))
            known.footprint = known.footprint.rested().held_asleep(gpus, held.host, trend)

    def _told(self, server: ModelServer) -> tuple[str, ...]:
        """Return the GPUs that a process was told of: an adopted process may hold nothing now."""
        root = self._roots.of(server.model.id)
        told = environment_of(root) if root else b""
        env = told.decode(errors="replace").split("\0")
        names = (said_by(env, "") or "").split(",")
        found = [matching(self._devices, name) for name in names if name]
        return tuple(one.name for one in found if one is not None)

    def _space(self, seen: Survey, readings: Sequence[Reading], rules: MemoryRules) -> Space:
        snapshots = [one.snapshot() for one in self.servers.values()]
        whole = {one.device.name: one.device.total - rules.reserve * MIB for one in readings}
        others = {one.device.name: self._strangers(one, seen, snapshots) for one in readings}
        titles = {
            one.device.name: f"GPU {one.device.index} ({one.device.title})" for one in readings
        }
        whole[HOST], others[HOST] = self._host(seen, snapshots, rules)
        whole = {device: max(0, size) for device, size in whole.items()}
        return Space(whole=whole, others=others, titles=titles)

    def _strangers(self, one: Reading, seen: Survey, snapshots: Sequence[Snapshot]) -> int:
        """Return what other programs hold on a GPU; unmeasured models are estimated."""
        told = {} if one.held is None else seen.held
        ours = 0
        for model in snapshots:
            held = told.get(model.model)
            amount = held.by_gpu.get(one.device.name, 0) if held else 0
            if held is None or model.state in IN_MOTION:  # its processes may not be there yet
                amount = max(amount, self._taken(model, one.device.name, one.used))
            ours += amount
        return max(0, one.used - ours)

    def _taken(self, model: Snapshot, device: str, used: int) -> int:
        """Return what a model is assumed to hold; on an exclusive device, everything in use."""
        if model.state not in HOLDS_MEMORY:
            return rest_of(model, model.gpus).get(device, 0) if model.state is State.ASLEEP else 0
        amounts, alone = amounts_of(model.need, model.gpus, self.space)
        return used if device in alone else amounts.get(device, 0)

    def _host(
        self, seen: Survey, snapshots: Sequence[Snapshot], rules: MemoryRules
    ) -> tuple[int, int]:
        """Return the host's memory for models, and what others hold of it.

        For a model, only memory that cannot be dropped counts: the kernel counts as free what it
        can drop, such as mapped files.
        """
        if rules.host_memory is not None:
            return int(rules.host_memory * GIB), 0
        total = seen.host_total or 0
        used, ours = total - (seen.host_free or 0), 0
        for model in snapshots:
            held = seen.held.get(model.model)
            own = held.own if held else None
            if own is None or model.state in IN_MOTION:
                own = max(own or 0, self._taken(model, HOST, used))
            ours += own
        return int(total * (1 - LEFT_TO_THE_HOST)), max(0, used - ours)

    # Which GPUs a model gets.

    def seat(self, server: ModelServer, gpus: tuple[str, ...]) -> None:
        """Give a model its GPUs before it is asked to serve; log it if it gets whole devices."""
        server.known.gpus = gpus
        where = ", ".join(map(self.space.title, gpus or (HOST,)))
        _, alone = amounts_of(server.known.need(server.model), gpus, self.space)
        if alone and server.at.state in ENDED and not server.known.footprint.is_short:
            key = "gpu" if gpus else "host"
            server.at.tell(
                "info",
                f"The model has {where} to itself while it is awake for the first time: its need "
                f"is not known yet. To let others run beside it, set a guess: memory.{key}",
            )

    def environment(self, name: str) -> Mapping[str, str]:
        """Return the variables that tell a model's process which GPUs it may use."""
        server = self.servers[name]
        if self.rules is None or self._said(server.model) is not None:
            return {}
        by_name = {one.name: one for one in self._devices}
        given = [by_name[gpu] for gpu in server.known.gpus if gpu in by_name]
        if given:
            return environment_for(given)
        is_for_none = server.known.count == 0 or (self._vendors and not self._devices)
        return environment_for((), self._vendors) if is_for_none else {}

    def _said(self, model: Model) -> str | None:
        return said_by(model.env, model.cmd.text)

    def _note_wishes(self, server: ModelServer) -> None:
        """Note on how many GPUs a model runs, or on which, as the file says it."""
        model, known = server.model, server.known
        if self._heeded.get(model.id) == (model, self._devices):
            return
        self._heeded[model.id] = model, self._devices
        said = self._said(model)
        names = said.split(",") if said else model.gpus if isinstance(model.gpus, tuple) else ()
        known.only = tuple(
            device.name for name in names if (device := self._named(model, name)) is not None
        )
        known.count = 0 if said == "" else model.gpus if isinstance(model.gpus, int) else len(names)

    def _named(self, model: Model, name: str) -> Device | None:
        found = matching(self._devices, name)
        if found is None and self._devices and (model.id, name) not in self._unknown:
            self._unknown.add((model.id, name))
            text = f"<{model.id}> No GPU for models is called '{name}'; the model may run on any"
            log.warning(text, model=model.id)
        return found


def _as_told(one: Reading, seen: Survey) -> Reading:
    """Return a GPU without its holders if the driver cannot name the models' processes.

    In a container, the driver names the host's processes, by pids that mean nothing here, or none.
    """
    if one.held is None or any(held.by_gpu.get(one.device.name) for held in seen.held.values()):
        return one
    known = sum(amount for pid, amount in one.held.items() if Path(f"/proc/{pid}").exists())
    return attrs.evolve(one, held=None) if one.used - known > MOST_OF_A_DRIVER else one
