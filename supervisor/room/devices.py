"""The GPUs of this machine: what each is called, how much memory it has, and who holds it.

Owns the one form in which all vendors' GPUs are seen. `nvml` and `drm` read what a driver tells.
Which process belongs to which model is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from supervisor.room import drm, nvml

NVIDIA = "nvidia"
_DOMAIN = "0000:"  # of PCI, which people omit


@attrs.frozen(kw_only=True)
class Device:
    """A GPU with memory of its own.

    Attributes:
        name: its permanent name: NVIDIA's UUID, else the address on the PCI bus.
        vendor: "nvidia", "amd" or "intel".
        index: its number among its vendor's GPUs.
        title: what people call it.
        total: its memory in bytes.
        known_as: other names that an operator may write for it, in lower case.
    """

    name: str
    vendor: str
    index: int
    title: str
    total: int
    known_as: frozenset[str]


@attrs.frozen(kw_only=True)
class Reading:
    """What was measured on a device at one moment.

    Attributes:
        device: the device.
        used: bytes in use, by all processes.
        held: bytes by pid; None if the driver does not count by process.
        uncounted: pids that hold or may hold memory, though the driver does not tell how much.
    """

    device: Device
    used: int
    held: Mapping[int, int] | None
    uncounted: frozenset[int] = frozenset()


@attrs.frozen
class Look:
    """One look at all devices.

    Attributes:
        readings: one for each device that could be read.
        sharing: the same for GPUs that use the host's memory and have none of their own.
        is_whole: whether there was a driver to ask, and every GPU answered.
    """

    readings: Sequence[Reading] = ()
    sharing: Sequence[Reading] = ()
    is_whole: bool = False

    def held_by(self, pids: Iterable[int]) -> int | None:
        """Return the bytes that processes hold on all GPUs; None if that is not known."""
        ours, seen = set(pids), (*self.readings, *self.sharing)
        if not self.is_whole or any(ours & one.uncounted for one in seen):
            return None
        return sum(_sum_of(one, ours) for one in seen)

    def by_device(self, pids: Iterable[int]) -> dict[str, int]:
        """Return the bytes that processes hold, by the name of each device with any of them."""
        ours = set(pids)
        sums = {one.device.name: _sum_of(one, ours) for one in self.readings}
        return {name: found for name, found in sums.items() if found}

    @property
    def pids(self) -> set[int]:
        """All processes that hold memory, as far as the drivers name them."""
        seen = (*self.readings, *self.sharing)
        return {pid for one in seen for pid in (*(one.held or ()), *one.uncounted)}


def look(pids: Iterable[int]) -> list[Reading]:
    """Return a reading of each device; a GPU that fails to answer is left out.

    Args:
        pids: the processes to look at, for AMD and Intel: there the kernel is asked for each
        process. NVIDIA's driver tells of all processes.
    """
    return list(look_at_all(pids).readings)


def look_at_all(pids: Iterable[int]) -> Look:
    """Return the same, and whether the look is complete."""
    by_driver, by_kernel = nvml.gpus(), drm.SYSTEM.cards(pids)
    seen = [gpu for gpu in by_driver or () if gpu is not None]
    has_all = len(seen) == len(by_driver) if by_driver is not None else not nvml.DRIVER.exists()
    return Look(
        readings=(
            *(_of_nvidia(gpu) for gpu in seen if gpu.total),
            *(_of_card(card) for card in by_kernel),
        ),
        sharing=[_of_nvidia(gpu) for gpu in seen if not gpu.total],
        is_whole=has_all and (by_driver is not None or bool(by_kernel)),
    )


def matching(devices: Sequence[Device], text: str) -> Device | None:
    """Return the one device that an operator means; None if no device or several devices match.

    Args:
        devices: the devices to choose from.
        text: an index, a UUID or its beginning, or an address on the PCI bus.
    """
    wanted = text.strip().lower()
    found = [one for one in devices if wanted in one.known_as]
    if not found and wanted.startswith("gpu-") and len(wanted) > len("gpu-"):
        found = [one for one in devices if one.name.lower().startswith(wanted)]
    return found[0] if len(found) == 1 else None


def _sum_of(reading: Reading, pids: set[int]) -> int:
    held = reading.held or {}
    return sum(held[pid] for pid in pids & held.keys())


def _of_nvidia(gpu: nvml.Gpu) -> Reading:
    device = Device(
        name=gpu.uuid,
        vendor=NVIDIA,
        index=gpu.number,
        title=gpu.title,
        total=gpu.total,
        known_as=_known_as(gpu.uuid, str(gpu.number), gpu.address),
    )
    held: dict[int, int] = {}
    for pid, size in gpu.processes:  # a process with parts of a GPU is listed once for each part
        if size is not None:
            held[pid] = held.get(pid, 0) + size
    uncounted = frozenset(pid for pid, size in gpu.processes if size is None)
    tells = bool(held) or not uncounted
    return Reading(device=device, used=gpu.used, held=held if tells else None, uncounted=uncounted)


def _of_card(card: drm.Card) -> Reading:
    device = Device(
        name=card.address,
        vendor=card.vendor,
        index=card.index,
        title=card.title,
        total=card.total,
        known_as=_known_as(card.address, str(card.index)),
    )
    return Reading(device=device, used=card.used, held=card.held, uncounted=card.hidden)


def _known_as(*names: str) -> frozenset[str]:
    written = [name.lower() for name in names if name]
    shorter = [name.removeprefix(_DOMAIN) for name in written]
    # nvidia-smi writes a domain of eight digits.
    longer = [f"{_DOMAIN[:-1]}{name}" for name in written if name.startswith(_DOMAIN)]
    return frozenset([*written, *shorter, *longer])
