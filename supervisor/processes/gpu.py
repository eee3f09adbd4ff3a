"""GPU memory of processes, as NVIDIA's driver tells it (NVML).

Owns the only use of NVML. Without the extra ``gpu``, a driver or a GPU nothing is known, and that
is no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DRIVER = Path("/proc/driver/nvidia/version")


def why_not_known() -> str | None:
    """Return why GPU memory is not measured on a machine that has NVIDIA's driver, or None."""
    if not DRIVER.exists() or _nvml() is not None:
        return None
    if find_spec("pynvml") is None:
        return "install llamadoze with its extra 'gpu'"
    return "NVML cannot be used (see nvidia-smi)"


def held_on_gpus(counts: Callable[[int], bool]) -> int | None:
    """Return the bytes that processes hold on all GPUs together; None if that is not known.

    A driver that counts for no process alone, such as one under a hypervisor, tells none.

    Args:
        counts: whether a process, by its pid, is one of them.
    """
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        found = [one.usedGpuMemory for one in _processes(nvml) if counts(one.pid)]
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


def _nvml() -> Any:  # noqa: ANN401 -- it ships no types
    """Return NVML ready to use; None if it is not there, which may change."""
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
