"""GPUs of AMD and Intel and what processes hold on them, as the kernel tells it, by no library.

Owns the figures of DRM (drm-usage-stats in the kernel's documentation) and of AMD's compute driver.
A GPU without memory of its own is none here. All of it was tested on made-up trees alone, as the
documentation describes them, and on no such GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from supervisor.room.kernelfiles import number_in, text_in

AMD, INTEL = "amd", "intel"
DRIVERS = {"amdgpu": AMD, "i915": INTEL, "xe": INTEL}
TITLES = {AMD: "AMD GPU", INTEL: "Intel GPU"}
LEAST = 2 << 30  # bytes: what has less is a part of a processor, and models use the host's memory
_CARD = re.compile(r"card\d+")
_FIGURE = re.compile(r"^(drm-[a-z0-9-]+):[ \t]*(\S+)(?: (KiB|MiB|GiB))?[ \t]*$", re.MULTILINE)
_RESIDENT = re.compile(r"drm-resident-(?:vram|local)\d*")
_OLDER = re.compile(r"drm-memory-(?:vram|local)\d*")  # amdgpu before Linux 6.13
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@attrs.frozen(kw_only=True)
class Card:
    """One GPU, as the kernel tells of it.

    Attributes:
        address: where it is on the PCI bus.
        vendor: "amd" or "intel".
        index: which of its vendor's GPUs it is, as ROCm or Level Zero counts.
        title: what it is called.
        total: bytes that it has.
        used: bytes that are taken. Intel's drivers do not tell: what is seen of processes.
        held: bytes by pid, of those that were looked at.
        hidden: the pids of those that may not be looked into, as another user's.
    """

    address: str
    vendor: str
    index: int
    title: str
    total: int
    used: int
    held: Mapping[int, int]
    hidden: frozenset[int]


@attrs.frozen
class Drm:
    """The kernel's files.

    Attributes:
        proc: where processes are told of.
        sys: where devices are.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    def cards(self, pids: Iterable[int]) -> list[Card]:
        """Return the GPUs that have memory of their own; nothing where the kernel tells nothing.

        Args:
            pids: the processes to look at. If there is no such GPU they are not even listed.
        """
        found = sorted(self._found(), key=lambda one: one.address)
        large = [one for one in found if one.is_large]
        if not large:
            return []
        rocm = _Rocm.seen(self.sys / "class/kfd/kfd")
        holders = _Holders(self.proc, rocm)
        for pid in pids:
            holders.add(pid)
        return [_card(one, _index_of(one, found, rocm.order), holders) for one in large]

    def _found(self) -> Iterator[_Found]:
        for name in _names_in(self.sys / "class/drm"):
            folder = self.sys / "class/drm" / name
            driver = os.path.basename(os.path.realpath(folder / "device/driver"))  # noqa: PTH119 -- the last word of a link
            if _CARD.fullmatch(name) and driver in DRIVERS:
                address = Path(os.path.realpath(folder / "device")).name
                yield _Found(folder, address, DRIVERS[driver], _total_of(folder))


@attrs.define(eq=False)
class _Holders:
    """Who holds memory, as it is found process by process.

    Attributes:
        proc: where processes are told of.
        rocm: those who use AMD's compute driver.
        held: bytes by the address of a GPU, and by pid.
        hidden: the pids of those that may not be looked into.
        clients: those that were counted, by the GPU's address and their number.
    """

    proc: Path
    rocm: _Rocm
    held: dict[str, dict[int, int]] = attrs.field(factory=dict, init=False)
    hidden: set[int] = attrs.field(factory=set, init=False)
    clients: set[tuple[str, str]] = attrs.field(factory=set, init=False)

    def add(self, pid: int) -> None:
        """Look at a process.

        Some kernels count what ROCm holds for the client, too, and some do not: the more is true.
        """
        by_rocm = self.rocm.held_by(pid)
        try:
            by_clients = self._of_clients(pid)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            by_clients = {}
        except OSError:  # it is another user's, say
            by_clients = {}
            self.hidden |= set() if by_rocm else {pid}
        for address, size in (*by_rocm.items(), *by_clients.items()):
            its = self.held.setdefault(address, {})
            its[pid] = max(its.get(pid, 0), size)

    def _of_clients(self, pid: int) -> dict[str, int]:
        """Return what a process holds, by the address of a GPU.

        A client that several processes share, as after a fork, counts for the first of them.
        """
        found: dict[str, int] = {}
        for figures in self._figures_of(pid):
            address = figures.get("drm-pdev", "")
            client = (address, figures.get("drm-client-id", f"of {pid}"))
            if client not in self.clients:
                self.clients.add(client)
                found[address] = found.get(address, 0) + _resident(figures)
        return {address: size for address, size in found.items() if size}

    def _figures_of(self, pid: int) -> Iterator[dict[str, str]]:
        """Yield what the kernel tells of each descriptor that leads to a GPU."""
        folder = f"{self.proc}/{pid}/fd"
        for name in os.listdir(folder):  # noqa: PTH208 -- as in `census`: there are thousands
            target = ""
            with suppress(FileNotFoundError):  # it was just closed
                target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 -- as above
            if target.startswith("/dev/dri/"):
                text = text_in(self.proc / f"{pid}/fdinfo/{name}")
                yield {key: f"{value} {unit}".strip() for key, value, unit in _FIGURE.findall(text)}


@attrs.frozen
class _Rocm:
    """AMD's compute driver: the GPUs that it has, and who uses them by it.

    Attributes:
        folder: its files.
        addresses: of its GPUs, by its own number of each, in its order.
        pids: of those that use it.
    """

    folder: Path
    addresses: Mapping[str, str]
    pids: frozenset[str]

    @classmethod
    def seen(cls, folder: Path) -> _Rocm:
        nodes = folder / "topology/nodes"
        found = {}
        for name in sorted(filter(str.isdecimal, _names_in(nodes)), key=int):
            if number := number_in(nodes / name / "gpu_id"):  # a processor's is 0
                found[str(number)] = _address_in(text_in(nodes / name / "properties"))
        return cls(folder, found, frozenset(_names_in(folder / "proc")))

    @property
    def order(self) -> list[str]:
        return list(self.addresses.values())

    def held_by(self, pid: int) -> dict[str, int]:
        """Return what a process holds, by the address of a GPU."""
        found: dict[str, int] = {}
        if str(pid) in self.pids:
            for number, address in self.addresses.items():
                size = number_in(self.folder / f"proc/{pid}/vram_{number}") or 0
                found[address] = found.get(address, 0) + size
        return {address: size for address, size in found.items() if size}


@attrs.frozen
class _Found:
    """A GPU by its folder, its address, its vendor and the bytes that it has."""

    folder: Path
    address: str
    vendor: str
    total: int

    @property
    def is_large(self) -> bool:
        return self.total >= LEAST


def _card(one: _Found, index: int, holders: _Holders) -> Card:
    held = holders.held.get(one.address, {})
    used = number_in(one.folder / "device/mem_info_vram_used")
    return Card(
        address=one.address,
        vendor=one.vendor,
        index=index,
        title=text_in(one.folder / "device/product_name") or TITLES[one.vendor],
        total=one.total,
        used=min(sum(held.values()), one.total) if used is None else used,
        held=held,
        hidden=frozenset(holders.hidden),
    )


def _index_of(one: _Found, found: list[_Found], order: list[str]) -> int:
    """Return the place of a GPU among its vendor's.

    ROCm counts all that its driver has, in the driver's order, those within a processor too. Level
    Zero counts those with memory of their own first.
    """
    if one.vendor == AMD and one.address in order:
        return order.index(one.address)
    beside = [other for other in found if other.vendor == one.vendor]
    return [other.address for other in beside if other.is_large or one.vendor == AMD].index(
        one.address
    )


def _total_of(folder: Path) -> int:
    """Return the bytes that a GPU has; 0 where its driver does not tell.

    amdgpu has one file, and xe one for each tile. i915 tells in Intel's own builds alone. Its size
    on the bus would be a guess: that is a power of two.
    """
    tiles = (number_in(tile) or 0 for tile in folder.glob("device/tile*/physical_vram_size_bytes"))
    files = ("device/mem_info_vram_total", "lmem_total_bytes", "device/lmem_total_bytes")
    return sum(tiles) or next(filter(None, (number_in(folder / name) for name in files)), 0)


def _resident(figures: Mapping[str, str]) -> int:
    """Return the bytes of a client in its GPU's memory, by the newest figure that is there."""
    for figure in (_RESIDENT, _OLDER):
        found = [_bytes(value) for key, value in figures.items() if figure.fullmatch(key)]
        if found:
            return sum(found)
    return 0


def _bytes(text: str) -> int:
    value, _, unit = text.partition(" ")
    return int(value) * _UNITS[unit] if value.isdecimal() else 0


def _address_in(properties: str) -> str:
    """Return a PCI address of ROCm's properties, which are a name and a number on each line."""
    pairs = (line.split() for line in properties.splitlines())
    values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    place = values.get("location_id", 0)
    bus, device, function = place >> 8 & 0xFF, place >> 3 & 0x1F, place & 7
    return f"{values.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function:x}"


def _names_in(folder: Path | str) -> list[str]:
    """Return the names in a folder; nothing if it cannot be read."""
    with suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208 -- names alone, of thousands
    return []


SYSTEM = Drm()
