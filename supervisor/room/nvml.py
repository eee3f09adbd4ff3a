"""NVIDIA's GPUs and what processes hold on them, as the driver tells it (NVML).

Owns the only use of NVML. Without the extra ``gpu``, a driver or a GPU, nothing is known. That is
no failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

DRIVER = Path("/proc/driver/nvidia/version")


@attrs.frozen
class Gpu:
    """One GPU, as the driver describes it.

    Attributes:
        uuid: its permanent name, "GPU-...".
        number: its number among the driver's GPUs.
        title: what NVIDIA calls such a GPU.
        address: its address on the PCI bus; empty if the driver does not tell it.
        total: its memory in bytes; 0 if it uses the host's memory and has none of its own.
        used: bytes in use.
        processes: pids, and the bytes that each holds there; None if that is not counted.
    """

    uuid: str
    number: int
    title: str
    address: str
    total: int
    used: int
    processes: Sequence[tuple[int, int | None]]


def gpus() -> list[Gpu | None] | None:
    """Return all GPUs, with None for each lost GPU; None if nothing can be read."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        return [_gpu(nvml, number) for number in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:  # the driver is being replaced
        return None


def _gpu(nvml: Any, number: int) -> Gpu | None:  # noqa: ANN401 -- it ships no types
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        total, used = _memory(nvml, device)
        return Gpu(
            uuid=nvml.nvmlDeviceGetUUID(device),
            number=number,
            title=nvml.nvmlDeviceGetName(device),
            address=_address(nvml, device),
            total=total,
            used=used,
            processes=[(one.pid, one.usedGpuMemory) for one in _processes_on(nvml, device)],
        )
    except nvml.NVMLError:  # it has fallen off the bus
        return None


@attrs.frozen
class Gauges:
    """Other figures that the driver tells of one GPU; -1 if it does not tell a figure.

    Attributes:
        uuid: the GPU's UUID.
        temperature: degrees Celsius.
        busy: per cent of the time in which something ran on the GPU.
        fan: per cent of the fan's speed.
        watts: the power that the GPU draws.
        most_watts: the power that the GPU may draw.
        driver: the driver's version.
    """

    uuid: str
    temperature: float = -1
    busy: float = -1
    fan: float = -1
    watts: float = -1
    most_watts: float = -1
    driver: str = ""


def gauges() -> list[Gauges]:
    """Return these figures for each GPU that answers."""
    nvml = _nvml()
    if nvml is None:
        return []
    try:
        count, driver = nvml.nvmlDeviceGetCount(), str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:  # the driver is being replaced
        return []
    found = (_gauges(nvml, number, driver) for number in range(count))
    return [one for one in found if one is not None]


def _gauges(nvml: Any, number: int, driver: str) -> Gauges | None:  # noqa: ANN401 -- it ships no types
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        uuid = nvml.nvmlDeviceGetUUID(device)
    except nvml.NVMLError:  # it has fallen off the bus
        return None

    def told(name: str, *more: int) -> Any:  # noqa: ANN401 -- it ships no types
        try:
            return getattr(nvml, f"nvmlDeviceGet{name}")(device, *more)
        except nvml.NVMLError:  # for example a card without a fan
            return -1

    rates = told("UtilizationRates")
    return Gauges(
        uuid,
        temperature=told("Temperature", nvml.NVML_TEMPERATURE_GPU),
        busy=rates if rates == -1 else rates.gpu,
        fan=told("FanSpeed"),
        watts=_watts(told("PowerUsage")),
        most_watts=_watts(told("PowerManagementLimit")),
        driver=driver,
    )


def _watts(milliwatts: float) -> float:
    return milliwatts if milliwatts == -1 else milliwatts / 1000


def _memory(nvml: Any, device: Any) -> tuple[int, int]:  # noqa: ANN401 -- it ships no types
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except nvml.NVMLError_NotSupported:  # for example a GB10
        return 0, 0
    return memory.total, memory.used


def _address(nvml: Any, device: Any) -> str:  # noqa: ANN401 -- it ships no types
    """Return the PCI address as the kernel writes it, with four digits of the domain."""
    try:
        domain, _, rest = nvml.nvmlDeviceGetPciInfo(device).busId.lower().partition(":")
    except nvml.NVMLError:  # a GPU that is passed through may hide it
        return ""
    return f"{domain[-4:]}:{rest}"


def why_not_known() -> str | None:
    """Return why GPU memory is not measured on a machine that has NVIDIA's driver, or None."""
    if not DRIVER.exists() or _nvml() is not None:
        return None
    if find_spec("pynvml") is None:
        return "install llamadoze with its extra 'gpu'"
    return "NVML cannot be used (see nvidia-smi)"


def _processes_on(nvml: Any, device: Any) -> Iterator[Any]:  # noqa: ANN401 -- it ships no types
    """Yield the processes of a GPU; a process that computes and draws is on both lists, in full."""
    compute = nvml.nvmlDeviceGetComputeRunningProcesses(device)
    yield from compute
    known = {one.pid for one in compute}
    yield from (one for one in _drawing(nvml, device) if one.pid not in known)


def _drawing(nvml: Any, device: Any) -> Iterable[Any]:  # noqa: ANN401 -- it ships no types
    try:
        return nvml.nvmlDeviceGetGraphicsRunningProcesses(device)  # type: ignore[no-any-return]
    except nvml.NVMLError_NotSupported:  # a GPU that only computes
        return ()


def _nvml() -> Any:  # noqa: ANN401 -- it ships no types
    """Return NVML ready to use; None if it is missing, which may change."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return _initialised()
    except pynvml.NVMLError:
        return None


@cache
def _initialised() -> Any:  # noqa: ANN401 -- it ships no types
    import pynvml

    pynvml.nvmlInit()
    return pynvml
