"""GPU memory of processes, as NVIDIA's driver tells it (NVML).

Owns the only use of NVML. Without the extra ``gpu``, a driver or a GPU nothing is known, and that
is no failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any


def held_on_gpus(pids: Iterable[int]) -> int | None:
    """Return the bytes that these processes hold on all GPUs together; None if that is not known.

    A driver that counts for no process alone, such as one under a hypervisor, tells none.
    """
    nvml = _nvml()
    if nvml is None:
        return None
    wanted = set(pids)
    try:
        found = [one.usedGpuMemory for one in _processes(nvml) if one.pid in wanted]
    except nvml.NVMLError:  # the GPU has fallen off the bus, or the driver is being replaced
        return None
    return None if None in found else sum(found)


def _processes(nvml: Any) -> Iterator[Any]:  # noqa: ANN401 -- it ships no types
    """Yield the processes of each GPU; one that computes and draws is on both lists with all."""
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        compute = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        yield from compute
        known = {one.pid for one in compute}
        yield from (one for one in _drawing(nvml, device) if one.pid not in known)


def _drawing(nvml: Any, device: Any) -> Iterable[Any]:  # noqa: ANN401 -- it ships no types
    try:
        return nvml.nvmlDeviceGetGraphicsRunningProcesses(device)  # type: ignore[no-any-return]
    except nvml.NVMLError_NotSupported:  # a GPU that only computes
        return ()


@cache
def _nvml() -> Any:  # noqa: ANN401 -- it ships no types
    """Return NVML ready to use; None if it is not there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
