"""Samples and the description of the machine: processors, memory, network and GPUs.

Owns llama-swap's format of both. `keeping` decides how often samples are taken.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from proxy.forwarding.inflight import rfc3339
from supervisor.room.devices import Reading
from supervisor.room.kernelfiles import text_in
from supervisor.room.nvml import Gauges, gauges

MB = 1 << 20
UNKNOWN = -1

Row = dict[str, Any]


def sample(at: float) -> Row:
    """Return a sample of the machine without its GPUs."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load = os.getloadavg()
    return {
        "timestamp": rfc3339(at),
        "cpu_util_per_core": psutil.cpu_percent(percpu=True),
        "mem_total_mb": memory.total // MB,
        "mem_used_mb": (memory.total - memory.available) // MB,
        "mem_free_mb": memory.available // MB,
        "swap_total_mb": swap.total // MB,
        "swap_used_mb": swap.used // MB,
        "load_avg_1": round(load[0], 2),
        "load_avg_5": round(load[1], 2),
        "load_avg_15": round(load[2], 2),
        "net_io": [
            {"name": name, "bytes_recv": one.bytes_recv, "bytes_sent": one.bytes_sent}
            for name, one in psutil.net_io_counters(pernic=True).items()
        ],
    }


def sample_gpus(at: float, readings: Sequence[Reading]) -> list[Row]:
    """Return a sample of the GPUs. Values that a driver does not provide are -1."""
    found = {one.uuid: one for one in gauges()}
    return [_gpu(at, one, found.get(one.device.name, Gauges(one.device.name))) for one in readings]


def _gpu(at: float, reading: Reading, told: Gauges) -> Row:
    device = reading.device
    return {
        "timestamp": rfc3339(at),
        "id": device.index,
        "name": device.title,
        "uuid": device.name,
        "temp_c": told.temperature,
        "vram_temp_c": UNKNOWN,
        "gpu_util_pct": told.busy,
        "mem_util_pct": round(100 * reading.used / device.total, 1) if device.total else 0,
        "mem_used_mb": reading.used // MB,
        "mem_total_mb": device.total // MB,
        "fan_speed_pct": told.fan,
        "power_draw_w": told.watts,
    }


def describe(readings: Sequence[Reading]) -> Row:
    """Describe the machine for a bug report. Nothing in it identifies its users."""
    found = {one.uuid: one for one in gauges()}
    return {
        "schema_version": 1,
        "captured_at": rfc3339(time.time()),
        "capture": {"scope": "host", "method": "local", "detector": "llamadoze"},
        "architecture": platform.machine(),
        "operating_system": {
            "name": platform.system(),
            "version": _system(),
            "kernel": platform.release(),
        },
        "environment": {"python": platform.python_version()},
        "cpu": {
            "model": _processor(),
            "physical_cores": psutil.cpu_count(logical=False) or UNKNOWN,
            "logical_cores": psutil.cpu_count() or UNKNOWN,
        },
        "memory": {"capacity_bytes": psutil.virtual_memory().total},
        "accelerators": [
            {
                "index": one.device.index,
                "kind": "gpu",
                "vendor": one.device.vendor,
                "model": one.device.title,
                "architecture": "",
                "memory": {"kind": "dedicated", "capacity_bytes": one.device.total},
                "driver": found[one.device.name].driver if one.device.name in found else "",
                "power_limit_watts": (
                    found[one.device.name].most_watts if one.device.name in found else UNKNOWN
                ),
            }
            for one in readings
        ],
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processor() -> str:
    lines = text_in(Path("/proc/cpuinfo")).splitlines()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, "").strip()
