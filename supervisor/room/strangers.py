"""What strangers to the daemon hold on the GPUs, and whether they have taken GPUs from models.

Owns the rule for that. `processes.survey` measures. `scheduling.yielding` decides what follows for
the models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from supervisor.room.devices import Reading

GIB = 1 << 30
MUCH = GIB  # what strangers must have taken before any model yields to them
MARGIN = GIB // 2  # the change after which that counts as over


@attrs.frozen(kw_only=True)
class GpuUse:
    """Who holds how much of one GPU, in bytes.

    Strangers have taken a GPU if two things are true. They hold 1 GiB more than the least that was
    seen of them. And beside them there is no room for the models that are awake, or were awake
    before they yielded. The GPU is theirs until one of the two is false by half a GiB. The models
    count as if they were awake all the time, so that their sleep alone ends nothing.

    Attributes:
        title: what operators call the GPU.
        whole: the GPU's memory, without the reserve.
        strangers: what strangers hold.
        least: the least that strangers were seen to hold.
        models: what each model holds, or held before it yielded.
        was_theirs: whether strangers had taken the GPU at the last look.
    """

    title: str
    whole: int
    strangers: int
    least: int = 0
    models: Mapping[str, int] = attrs.field(factory=dict)
    was_theirs: bool = False

    @property
    def is_theirs(self) -> bool:
        """Whether strangers have taken the GPU."""
        less = MARGIN if self.was_theirs else 0
        grown = self.strangers - self.least
        lacks = sum(self.models.values()) + self.strangers - self.whole
        return bool(self.models) and grown >= MUCH - less and lacks > -less


@attrs.define(eq=False)
class Strangers:
    """What is seen of strangers, from look to look; everything is by the names of devices.

    Attributes:
        least: the fewest bytes that they held.
        theirs: the GPUs that they have taken.
        had: what each model held when it was last seen before it yielded.
    """

    least: dict[str, int] = attrs.field(factory=dict, init=False)
    theirs: set[str] = attrs.field(factory=set, init=False)
    had: dict[str, Mapping[str, int]] = attrs.field(factory=dict, init=False)

    def note(
        self,
        readings: Iterable[Reading],
        held: Mapping[str, Mapping[str, int]],
        yielded: Collection[str],
        reserve: int = 0,
    ) -> tuple[GpuUse, ...]:
        """Return who holds what, for each GPU where that can be told.

        Args:
            readings: what was read of the GPUs.
            held: what each model holds, by device; this is no stranger's memory.
            yielded: the models that sleep for strangers.
            reserve: bytes that are left free on each GPU.
        """
        self.had |= {name: amounts for name, amounts in held.items() if name not in yielded}
        uses = {
            one.device.name: self._use(one, held, yielded, reserve)
            for one in readings
            if one.held is not None
        }
        self.theirs = {name for name, use in uses.items() if use.is_theirs}
        return tuple(uses.values())

    def _use(
        self,
        one: Reading,
        held: Mapping[str, Mapping[str, int]],
        yielded: Collection[str],
        reserve: int,
    ) -> GpuUse:
        gpu = one.device.name
        now = {name: amounts.get(gpu, 0) for name, amounts in held.items()}
        had = {name: self.had.get(name, {}).get(gpu, 0) for name in yielded}
        strangers = max(0, one.used - sum(now.values()))
        self.least[gpu] = min(strangers, self.least.get(gpu, strangers))
        models = {name: max(now.get(name, 0), had.get(name, 0)) for name in {*now, *had}}
        return GpuUse(
            title=f"GPU {one.device.index} ({one.device.title})",
            whole=one.device.total - reserve,
            strangers=strangers,
            least=self.least[gpu],
            models={name: amount for name, amount in models.items() if amount},
            was_theirs=gpu in self.theirs,
        )
