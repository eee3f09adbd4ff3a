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
        # A process that computes and draws is on both lists, with all it holds on each.
        found = {
            (device, process.pid): process.usedGpuMemory
            for device, process in _processes(nvml)
            if process.pid in wanted
        }
    except nvml.NVMLError:  # the GPU has fallen off the bus, or the driver is being replaced
        return None
    return None if None in found.values() else sum(found.values())


def _processes(nvml: Any) -> Iterator[tuple[int, Any]]:  # noqa: ANN401 -- it ships no types
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        for processes in (
            nvml.nvmlDeviceGetComputeRunningProcesses(device),
            nvml.nvmlDeviceGetGraphicsRunningProcesses(device),
        ):
            yield from ((number, process) for process in processes)


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
