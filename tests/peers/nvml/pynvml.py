"""NVML with stand-in GPUs: a file says how much memory a process holds.

``PID.bytes`` is for the first GPU, ``PID.N.bytes`` for GPU N. ``stranger.N.bytes`` belongs to a
program that is no model.

CUDA_STAND_IN_GPUS gives the GiB of each GPU, separated by commas; without it, there is one GPU of
80 GiB. A process holds nothing if its file ``PID`` says that it is checkpointed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

CHECKPOINTED = "2"
STRANGER = 1  # a pid that always exists and is no model's


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801 -- NVIDIA's name
    pass


def _sizes() -> list[int]:
    said = os.environ.get("CUDA_STAND_IN_GPUS") or "80"
    return [int(float(size) * (1 << 30)) for size in said.split(",")]


def _held(gpu: int) -> Iterator[SimpleNamespace]:
    for file in Path(os.environ["CUDA_STAND_IN"]).glob("*.bytes"):
        holder, _, number = file.stem.partition(".")
        pid = STRANGER if holder == "stranger" else int(holder)
        if int(number or 0) == gpu and Path("/proc", str(pid)).exists():
            state = file.with_name(holder)
            is_gone = state.exists() and state.read_text() == CHECKPOINTED
            held = 0 if is_gone else int(_text(file) or 0)
            yield SimpleNamespace(pid=pid, usedGpuMemory=held)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:  # the process has just ended
        return ""


def nvmlInit() -> None:  # noqa: N802 -- NVIDIA's names, here and below
    if "CUDA_STAND_IN" not in os.environ:
        raise NVMLError


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_sizes())


def nvmlDeviceGetHandleByIndex(number: int) -> int:  # noqa: N802
    return number


def nvmlDeviceGetUUID(device: int) -> str:  # noqa: N802
    return f"GPU-00000000-0000-0000-0000-{device:012}"


def nvmlDeviceGetPciInfo(device: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(busId=f"00000000:{device + 1:02X}:00.0")


def nvmlDeviceGetComputeRunningProcesses(device: int) -> list[SimpleNamespace]:  # noqa: N802
    return list(_held(device))


def nvmlDeviceGetGraphicsRunningProcesses(_: int) -> list[SimpleNamespace]:  # noqa: N802
    raise NVMLError_NotSupported


def nvmlDeviceGetName(_: int) -> str:  # noqa: N802
    return os.environ.get("CUDA_STAND_IN_NAME", "a GPU that is made up")


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "0.0 (made up)"


def nvmlDeviceGetMemoryInfo(device: int) -> SimpleNamespace:  # noqa: N802
    used = sum(one.usedGpuMemory for one in _held(device))
    total = _sizes()[device]
    return SimpleNamespace(total=total, used=used, free=total - used)


NVML_TEMPERATURE_GPU = 0


def nvmlDeviceGetUtilizationRates(_: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=37, memory=12)


def nvmlDeviceGetTemperature(_: int, __: int) -> int:  # noqa: N802
    return 61


def nvmlDeviceGetFanSpeed(_: int) -> int:  # noqa: N802
    raise NVMLError_NotSupported


def nvmlDeviceGetPowerUsage(_: int) -> int:  # noqa: N802
    return 142_500


def nvmlDeviceGetPowerManagementLimit(_: int) -> int:  # noqa: N802
    return 350_000
