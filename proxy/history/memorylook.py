"""The use of memory on each GPU and on the host: by awake models, sleepers and strangers.

Owns its format for pages, and the samples of a day. The supervisor measures the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from proxy.history.spans import DAY
from supervisor import State, Supervisor
from supervisor.processes.memory import Held, belongs_to
from supervisor.processes.survey import Survey
from supervisor.room.devices import Reading
from supervisor.room.kernelfiles import text_in
from supervisor.room.space import HOST
from supervisor.states.table import HAS_PROCESS

MOST_HOLDERS, MOST_STRANGERS = 16, 4
LITTLE = 64 << 20  # bytes; smaller strangers are not named
BETWEEN_SAMPLES = 15.0  # seconds between two kept samples
MOST_SAMPLES = int(DAY / BETWEEN_SAMPLES)

Row = dict[str, Any]


def memory_of(supervisor: Supervisor, seen: Survey, at: float) -> Row:
    """Return the use of memory in bytes, in the format for pages.

    Used host memory that belongs to no model counts as others'. A mapped file that the kernel can
    drop counts for its model and also as free, so the parts can sum up to more than the whole.
    """
    roots = [one.at.pid for one in supervisor.servers.values() if one.at.pid]
    asleep = {name for name, one in supervisor.servers.items() if one.at.state is State.ASLEEP}
    devices = [
        _device(
            one.device.name,
            f"GPU {one.device.index} ({one.device.title})",
            *(one.device.total, one.used),
            _sums(seen.held, asleep, partial(_on, one.device.name)),
        )
        | {"strangers": strangers_on(one, roots)}
        for one in seen.readings
    ]
    total, free = seen.host_total or 0, seen.host_free or 0
    of_host = _sums(seen.held, asleep, lambda held: held.own or 0)
    devices.append(_device(HOST, "Host memory", total, total - free, of_host))
    return {"at": at, "devices": devices, "models": _models(supervisor, seen.held)}


def strangers_on(reading: Reading, roots: Iterable[int]) -> list[Row]:
    """Return the processes that use most of a GPU's memory and belong to no model.

    Args:
        reading: the GPU's memory and its users.
        roots: the pid of the first process of each model server.
    """
    held = sorted((reading.held or {}).items(), key=lambda pair: -pair[1])
    found = [
        {"pid": pid, "name": text_in(Path(f"/proc/{pid}/comm")).strip(), "bytes": size}
        for pid, size in held[:MOST_HOLDERS]
        if size >= LITTLE and not any(belongs_to(root, pid) for root in roots)
    ]
    return found[:MOST_STRANGERS]


def _sums(
    held: Mapping[str, Held], asleep: set[str], size: Callable[[Held], int]
) -> tuple[int, int]:
    awake_bytes = sum(size(one) for name, one in held.items() if name not in asleep)
    return awake_bytes, sum(size(one) for name, one in held.items() if name in asleep)


def _on(device: str, held: Held) -> int:
    return held.by_gpu.get(device, 0)


def _device(name: str, title: str, total: int, used: int, sums: tuple[int, int]) -> Row:
    awake, asleep = sums
    return {
        "name": name,
        "title": title,
        "total": total,
        "awake": awake,
        "asleep": asleep,
        "others": max(0, used - awake - asleep),
        "free": max(0, total - max(used, awake + asleep)),
    }


def _models(supervisor: Supervisor, held: Mapping[str, Held]) -> list[Row]:
    return [
        {"model": name, "gpus": dict(one.by_gpu), "gpu": one.gpu, "host": one.host}
        for name, one in sorted(held.items())
        if name in supervisor.servers and supervisor.servers[name].at.state in HAS_PROCESS
    ]


@attrs.define(eq=False)
class MemorySamples:
    """The samples of a day, some seconds apart.

    Attributes:
        latest: the whole latest sample.
    """

    latest: Row | None = attrs.field(default=None, init=False)
    _samples: deque[Row] = attrs.field(factory=lambda: deque(maxlen=MOST_SAMPLES), init=False)

    def add(self, row: Row) -> None:
        """Keep the devices of a sample, unless the last kept one is too recent."""
        self.latest = row
        last = self._samples[-1]["at"] if self._samples else 0.0
        if row["at"] - last >= BETWEEN_SAMPLES:
            devices = [
                {key: value for key, value in one.items() if key != "free"}
                for one in row["devices"]
            ]
            self._samples.append({"at": row["at"], "devices": devices})

    def between(self, since: float, until: float) -> list[Row]:
        """Return the samples within these times."""
        return [row for row in self._samples if since <= row["at"] <= until]
