"""NVML with one GPU, whose processes are files: ``PID.bytes`` holds what a process holds.

A process that is checkpointed, by its state in the file ``PID``, holds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

MEMORY = 80 << 30  # bytes that the GPU has
CHECKPOINTED = "2"


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801 -- NVIDIA's name
    pass


def _held() -> Iterator[SimpleNamespace]:
    for file in Path(os.environ["CUDA_STAND_IN"]).glob("*.bytes"):
        if Path("/proc", file.stem).exists():
            state = file.with_suffix("")
            is_gone = state.exists() and state.read_text() == CHECKPOINTED
            held = 0 if is_gone else int(file.read_text() or 0)
            yield SimpleNamespace(pid=int(file.stem), usedGpuMemory=held)


def nvmlInit() -> None:  # noqa: N802 -- NVIDIA's names, here and below
    if "CUDA_STAND_IN" not in os.environ:
        raise NVMLError


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(number: int) -> int:  # noqa: N802
    return number


def nvmlDeviceGetComputeRunningProcesses(_: int) -> list[SimpleNamespace]:  # noqa: N802
    return list(_held())


def nvmlDeviceGetGraphicsRunningProcesses(_: int) -> list[SimpleNamespace]:  # noqa: N802
    raise NVMLError_NotSupported


def nvmlDeviceGetName(_: int) -> str:  # noqa: N802
    return "a GPU that is made up"


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "0.0 (made up)"


def nvmlDeviceGetMemoryInfo(_: int) -> SimpleNamespace:  # noqa: N802
    used = sum(one.usedGpuMemory for one in _held())
    return SimpleNamespace(total=MEMORY, used=used, free=MEMORY - used)
