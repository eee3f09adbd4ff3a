"""GPUs of AMD and Intel and what processes hold on them, read from the kernel without a library.

Owns the figures of DRM (drm-usage-stats in the kernel's documentation) and of AMD's compute driver.
A GPU without memory of its own does not count. All of this was tested only on made-up trees, built
as the documentation describes them, and on no such GPU.
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
LEAST = 2 << 30  # bytes: a GPU with less is part of a processor, and models use the host's memory
_CARD = re.compile(r"card\d+")
_FIGURE = re.compile(r"^(drm-[a-z0-9-]+):[ \t]*(\S+)(?: (KiB|MiB|GiB))?[ \t]*$", re.MULTILINE)
_RESIDENT = re.compile(r"drm-resident-(?:vram|local)\d*")
_OLDER = re.compile(r"drm-memory-(?:vram|local)\d*")  # amdgpu before Linux 6.13
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@attrs.frozen(kw_only=True)
class Card:
    """One GPU, as the kernel describes it.

    Attributes:
        address: its address on the PCI bus.
        vendor: "amd" or "intel".
        index: its number among its vendor's GPUs, as ROCm or Level Zero counts.
        title: what it is called.
        total: its memory in bytes.
        used: bytes in use. Intel's drivers do not tell: then the sum of what processes hold.
        held: bytes by pid, of the processes that were looked at.
        hidden: the pids of processes that may not be read, such as another user's.
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
        proc: the folder of processes.
        sys: the folder of devices.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    def cards(self, pids: Iterable[int]) -> list[Card]:
        """Return the GPUs that have memory of their own; empty if the kernel tells nothing.

        Args:
            pids: the processes to look at. Without such a GPU they are not even listed.
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
    """Which processes hold memory, found process by process.

    Attributes:
        proc: the folder of processes.
        rocm: the processes that use AMD's compute driver.
        held: bytes by the address of a GPU, and by pid.
        hidden: the pids of processes that may not be read.
        clients: the clients that were counted, by the GPU's address and the client's number.
    """

    proc: Path
    rocm: _Rocm
    held: dict[str, dict[int, int]] = attrs.field(factory=dict, init=False)
    hidden: set[int] = attrs.field(factory=set, init=False)
    clients: set[tuple[str, str]] = attrs.field(factory=set, init=False)

    def add(self, pid: int) -> None:
        """Look at a process.

        Some kernels count ROCm's memory for the client, too, and some do not: the larger number is
        right.
        """
        by_rocm = self.rocm.held_by(pid)
        try:
            by_clients = self._of_clients(pid)
        except (FileNotFoundError, ProcessLookupError):  # the process has just ended
            by_clients = {}
        except OSError:  # the process belongs to another user, for example
            by_clients = {}
            self.hidden |= set() if by_rocm else {pid}
        for address, size in (*by_rocm.items(), *by_clients.items()):
            its = self.held.setdefault(address, {})
            its[pid] = max(its.get(pid, 0), size)

    def _of_clients(self, pid: int) -> dict[str, int]:
        """Return what a process holds, by the address of a GPU.

        A client that several processes share, as after a fork, counts for the first process.
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
        """Yield what the kernel tells of each file descriptor that leads to a GPU."""
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
    """AMD's compute driver: its GPUs, and the processes that use them through it.

    Attributes:
        folder: the driver's files.
        addresses: the addresses of its GPUs, by the driver's own number, in the driver's order.
        pids: the processes that use it.
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
    """A GPU: its folder, its address, its vendor and its memory in bytes."""

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
    """Return the position of a GPU among its vendor's GPUs.

    ROCm counts all GPUs that its driver has, in the driver's order, including those within a
    processor. Level Zero counts the GPUs with memory of their own first.
    """
    if one.vendor == AMD and one.address in order:
        return order.index(one.address)
    beside = [other for other in found if other.vendor == one.vendor]
    return [other.address for other in beside if other.is_large or one.vendor == AMD].index(
        one.address
    )


def _total_of(folder: Path) -> int:
    """Return a GPU's memory in bytes; 0 if its driver does not tell.

    amdgpu has one file, and xe one for each tile. i915 tells only in Intel's own builds. The GPU's
    size on the bus would be a guess: that is a power of two.
    """
    tiles = (number_in(tile) or 0 for tile in folder.glob("device/tile*/physical_vram_size_bytes"))
    files = ("device/mem_info_vram_total", "lmem_total_bytes", "device/lmem_total_bytes")
    return sum(tiles) or next(filter(None, (number_in(folder / name) for name in files)), 0)


def _resident(figures: Mapping[str, str]) -> int:
    """Return the bytes that a client holds in its GPU's memory, by the newest figure there is."""
    for figure in (_RESIDENT, _OLDER):
        found = [_bytes(value) for key, value in figures.items() if figure.fullmatch(key)]
        if found:
            return sum(found)
    return 0


def _bytes(text: str) -> int:
    value, _, unit = text.partition(" ")
    return int(value) * _UNITS[unit] if value.isdecimal() else 0


def _address_in(properties: str) -> str:
    """Return the PCI address in ROCm's properties, which are a name and a number on each line."""
    pairs = (line.split() for line in properties.splitlines())
    values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    place = values.get("location_id", 0)
    bus, device, function = place >> 8 & 0xFF, place >> 3 & 0x1F, place & 7
    return f"{values.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function:x}"


def _names_in(folder: Path | str) -> list[str]:
    """Return the names in a folder; empty if it cannot be read."""
    with suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208 -- names alone, of thousands
    return []


SYSTEM = Drm()
