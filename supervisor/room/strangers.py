"""What strangers to the daemon hold of the GPUs, and whether they have taken them from models.

Owns the rule for that. Looking is `processes.survey`'s; what follows for the models is decided in
`scheduling.yielding`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from supervisor.room.devices import Reading

GIB = 1 << 30
MUCH = GIB  # that strangers must have taken, before anybody yields to them
MARGIN = GIB // 2  # by which that must have changed before it counts as over


@attrs.frozen(kw_only=True)
class GpuUse:
    """Who has how much of one GPU, in bytes.

    Strangers have taken it once both is so: they hold 1 GiB more than the least that was seen of
    them, and beside that there is no room for the models that are awake, or were before they
    yielded. It is theirs until one of the two is not so by half a GiB. The models count as if
    they were awake all the time, so that their sleep alone ends nothing.

    Attributes:
        title: what operators call it.
        whole: that it has, without what is reserved.
        strangers: what others than models hold.
        least: the least that was seen of that.
        models: what each model holds, or held before it yielded.
        was_theirs: whether strangers had taken it at the last look.
    """

    title: str
    whole: int
    strangers: int
    least: int = 0
    models: Mapping[str, int] = attrs.field(factory=dict)
    was_theirs: bool = False

    @property
    def is_theirs(self) -> bool:
        """Whether strangers have taken it."""
        less = MARGIN if self.was_theirs else 0
        grown = self.strangers - self.least
        lacks = sum(self.models.values()) + self.strangers - self.whole
        return bool(self.models) and grown >= MUCH - less and lacks > -less


@attrs.define(eq=False)
class Strangers:
    """What is seen of them, from look to look; all by the names of devices.

    Attributes:
        least: the bytes that they held when that was least.
        theirs: the GPUs that they have taken.
        had: what each model held when it was last seen and had not yielded.
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
        """Return who has what, as far as that can be told of each GPU.

        Args:
            readings: what was seen of the GPUs.
            held: what each model holds, by device; that is no stranger's.
            yielded: the models that sleep for others.
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
