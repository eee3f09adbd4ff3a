"""What memory there is for models, on each GPU and on the host. Pure facts.

Owns what is subtracted for others. `processes.survey` measures. `scheduling.bymemory` decides who
gets the memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

HOST = "host"
"""The host's memory as a device; without a GPU it is the only device."""


@attrs.frozen(kw_only=True)
class Space:
    """The memory that all models together may hold.

    Attributes:
        whole: bytes of each GPU without the reserve, and of the host; by the device's name.
        others: bytes of these that other programs hold, such as a desktop or a training run.
        titles: what operators call the devices.
    """

    whole: Mapping[str, int]
    others: Mapping[str, int] = attrs.field(factory=dict)
    titles: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def gpus(self) -> list[str]:
        """The names of the GPUs, in the order in which they are tried."""
        return [device for device in self.whole if device != HOST]

    @property
    def free_for_models(self) -> Mapping[str, int]:
        """The bytes of each device that models may use, including what models hold now."""
        return {d: max(0, size - self.others.get(d, 0)) for d, size in self.whole.items()}

    def title(self, device: str) -> str:
        """Return what operators call a device."""
        return self.titles.get(device, "the host" if device == HOST else device)
