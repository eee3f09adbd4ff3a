"""One look at the memory of an allocation, as the launchers of its models report it.

Owns the stand-ins for GPUs that were not seen yet, by their count. What follows from a look is
decided as on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
import trio

from supervisor.processes.memory import Held
from supervisor.processes.survey import Survey
from supervisor.room.devices import NVIDIA, Device, Reading

UNSEEN_SIZE = 1 << 50  # bytes of a GPU that was not seen yet; the first model has it alone


class Weighed(Protocol):
    """A model server, as far as this module needs it."""

    @property
    def life(self) -> object:
        """What identifies its present process; None without a process."""

    async def weigh(self) -> Held:
        """Return what it holds, host memory included; an empty `Held` if that cannot be seen."""

    @property
    def devices(self) -> Sequence[Reading]:
        """The GPUs that were seen when it was last weighed."""


@attrs.define(eq=False)
class SurveyThere:
    """Looks at one allocation.

    Attributes:
        servers: the servers in it, by the ids of their models.
        gres: returns the ``gres`` that is requested for it.
    """

    servers: Mapping[str, Weighed]
    gres: Callable[[], str] = lambda: ""
    _seen: dict[str, Reading] = attrs.field(factory=dict, init=False)

    async def take(self, _: Mapping[str, int]) -> Survey:
        """Ask all launchers at once; the processes of this machine do not matter here."""
        held: dict[str, Held] = {}

        async def weigh(name: str, server: Weighed) -> None:
            held[name] = await server.weigh()
            if server.devices:
                self._seen = {one.device.name: one for one in server.devices}

        is_in_use = any(server.life is not None for server in self.servers.values())
        known = self._seen if is_in_use else {}  # the next job may have other GPUs
        self._seen = {name: attrs.evolve(one, used=0) for name, one in known.items()}
        async with trio.open_nursery() as nursery:
            for name, server in self.servers.items():
                if server.life is not None:
                    nursery.start_soon(weigh, name, server)
        readings = [*self._seen.values()] or unseen(self.gres())
        seen = {name: one for name, one in held.items() if one != Held()}
        return Survey(readings=readings, held=seen)


def unseen(gres: str) -> list[Reading]:
    """Return stand-ins for the GPUs of an allocation before any of them was seen."""
    numbers = range(gpus_in(gres))
    found = [device_named(f"gpu {n}", n, "not seen yet", UNSEEN_SIZE) for n in numbers]
    return [Reading(device=attrs.evolve(one, vendor=""), used=0, held={}) for one in found]


def device_named(name: str, index: int, title: str, total: int) -> Device:
    """Return a GPU of a node."""
    known_as = frozenset({name.lower(), str(index)})
    return Device(
        name=name, vendor=NVIDIA, index=index, title=title, total=total, known_as=known_as
    )


def gpus_in(gres: str) -> int:
    """Return the number of GPUs in a text such as ``gpu:a100:2``; ``gpu`` alone means one."""
    count = 0
    for part in gres.replace("gres/", "").replace("gres:", "").split(","):
        name, *rest = part.partition("(")[0].strip().split(":")
        if name == "gpu":
            count += int(rest[-1]) if rest and rest[-1].isdecimal() else 1
    return count
