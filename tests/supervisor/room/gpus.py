"""Made-up GPUs: NVML in this process, and the kernel's files for AMD and Intel."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisor.room import nvml as driver

GIB = 1 << 30


class NVMLError(Exception):
    pass


class NVMLErrorNotSupported(NVMLError):
    pass


class Process:
    def __init__(self, pid: int, held: int | None) -> None:
        self.pid = pid
        self.usedGpuMemory = held


class FakeNvml(types.ModuleType):
    """Two GPUs, each with lists of the processes that compute and of those that draw."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.NVMLError = NVMLError
        self.NVMLError_NotSupported = NVMLErrorNotSupported
        self.draws = True
        self.compute: list[list[Process]] = [[], []]
        self.graphics: list[list[Process]] = [[], []]
        self.broken = False
        self.lost: set[int] = set()
        self.has_memory = True

    def nvmlInit(self) -> None:  # noqa: N802 -- NVML's name, here and below
        if self.broken:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.broken:
            raise NVMLError("GPU is lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if number in self.lost:
            raise NVMLError("GPU is lost")
        return number

    def nvmlDeviceGetUUID(self, device: int) -> str:  # noqa: N802
        return f"GPU-{'ab'[device]}1b2c3d4-0000"

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return f"Made up {device}"

    def nvmlDeviceGetPciInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        if device:
            raise NVMLErrorNotSupported
        return SimpleNamespace(busId="00000000:C1:00.0")

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        if not self.has_memory:
            raise NVMLErrorNotSupported
        processes = [*self.compute[device], *self.graphics[device]]
        return SimpleNamespace(
            total=24 * GIB, used=sum(one.usedGpuMemory or 0 for one in processes)
        )

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Process]:  # noqa: N802
        return self.compute[device]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: int) -> list[Process]:  # noqa: N802
        if not self.draws:
            raise NVMLErrorNotSupported
        return self.graphics[device]


@contextmanager
def made_up_nvml(patch: pytest.MonkeyPatch, module: types.ModuleType) -> Iterator[None]:
    """Let this module stand in for NVML in the block."""
    patch.setitem(sys.modules, "pynvml", module)
    driver._initialised.cache_clear()
    yield
    driver._initialised.cache_clear()


def write(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def plug_in(sys_files: Path, card: str, driver: str, address: str, **files: object) -> Path:
    """Make a GPU as sysfs shows it, with numbers in its files; return the folder of its device."""
    device = sys_files / "devices/pci0000:00" / address
    (sys_files / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
    device.mkdir(parents=True)
    (device / "driver").symlink_to(sys_files / "bus/pci/drivers" / driver)
    (sys_files / "class/drm" / card).mkdir(parents=True)
    (sys_files / "class/drm" / card / "device").symlink_to(device)
    for name, value in files.items():
        write(device / name, value)
    return device


def open_gpu(proc_files: Path, pid: int, descriptor: int, address: str, **figures: object) -> None:
    """Let a process have a descriptor of a GPU, with figures such as ``resident_vram="1 KiB"``."""
    folder = proc_files / str(pid)
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    (folder / "fd" / str(descriptor)).symlink_to("/dev/dri/renderD128")
    keys = {"pdev": address, **figures}
    lines = [f"drm-{key.replace('_', '-')}:\t{value}" for key, value in keys.items()]
    write(folder / "fdinfo" / str(descriptor), "\n".join(["pos:\t0", "flags:\t02", *lines]))
