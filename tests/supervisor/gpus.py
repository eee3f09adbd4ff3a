"""A made-up GPU for a supervisor over fake programs: what models and strangers hold."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from supervisor import State, Supervisor
from supervisor.processes.memory import Held
from supervisor.processes.survey import Survey
from supervisor.room.devices import Device, Reading

GIB = 1 << 30
DEVICE = Device(
    name="GPU-0", vendor="nvidia", index=0, title="Fake", total=24 * GIB, known_as=frozenset()
)


@attrs.define(eq=False)
class FakeGpu:
    """One GPU of 24 GiB.

    Attributes:
        supervisor: the supervisor whose models are on the GPU.
        awake: GiB that each model holds awake; a model that is not named holds none.
        asleep: GiB that each model holds asleep.
        strangers: GiB that other programs hold.
        looks: how often the GPU was looked at.
        is_silent: whether the driver tells nothing of single processes.
    """

    supervisor: Supervisor
    awake: dict[str, float]
    asleep: dict[str, float] = attrs.field(factory=dict)
    strangers: float = 0.0
    looks: int = 0
    is_silent: bool = False

    def install(self) -> None:
        self.supervisor._fleet.rooms.here.take = self.take

    async def take(self, roots: Mapping[str, int]) -> Survey:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        held = {name: self._held(name) for name in roots}
        used = int(self.strangers * GIB) + sum(held.values())
        pids = {pid: held[name] for name, pid in roots.items()}
        return Survey(
            readings=[Reading(device=DEVICE, used=used, held=None if self.is_silent else pids)],
            held={name: Held(0, size, {DEVICE.name: size}) for name, size in held.items()},
            host_total=64 * GIB,
            host_free=64 * GIB,
        )

    def _held(self, name: str) -> int:
        is_asleep = self.supervisor.servers[name].at.state is State.ASLEEP
        return int((self.asleep if is_asleep else self.awake).get(name, 0) * GIB)
