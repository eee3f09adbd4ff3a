"""What processes of a node hold of its memory, and whether one of them listens on a port.

Owns how that is looked up there. The module runs there as text: Python 3.8 and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Any

LONGEST_SMI = 5.0  # seconds for nvidia-smi to answer
LISTENS = "0A"  # the state of a listening socket in proc_net_tcp


def host_memory(pids: list[int]) -> dict[str, int]:
    """Return the bytes of host memory that processes hold, and the part that cannot be dropped."""
    total = own = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{pid}/status") as file:
                found = dict(line.split(":", 1) for line in file if ":" in line)
            parts = {
                name: int(text.split()[0]) << 10 for name, text in found.items() if " kB" in text
            }
            total += parts.get("VmRSS", 0) + parts.get("VmSwap", 0)
            own += parts.get("RssAnon", 0) + parts.get("RssShmem", 0)
    return {"host": total, "own": own}


def _smi(*query: str) -> list[list[str]]:
    """Return the rows that nvidia-smi prints."""
    said = subprocess.run(
        ("nvidia-smi", *query, "--format=csv,noheader,nounits"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        timeout=LONGEST_SMI,
        check=True,
    ).stdout.decode()
    return [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line]


def gpu_memory(pids: list[int]) -> dict[str, Any]:
    """Return the step's GPUs, in bytes, and what processes hold on them; empty if unknown."""
    try:
        devices = [
            {"uuid": uuid, "name": name, "total": int(total) << 20, "used": int(used) << 20}
            for uuid, name, total, used in _smi("--query-gpu=uuid,name,memory.total,memory.used")
        ]
        rows = _smi("--query-compute-apps=pid,gpu_uuid,used_memory")
        held: dict[str, int] = {}
        for pid, uuid, used in rows:
            if int(pid) in pids:
                held[uuid] = held.get(uuid, 0) + (int(used) << 20)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {"devices": devices, "held": held}


def is_listening(pids: list[int], port: int) -> bool | None:
    """Whether one of these processes listens on a port; None if no listener is visible."""
    inodes = {f"socket:[{inode}]" for inode in _listening_on(port)}
    if not inodes:
        return None
    return any(not inodes.isdisjoint(_sockets_of(pid)) for pid in pids)


def _listening_on(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open("/proc/net/" + name) as file:
            rows = [line.split() for line in list(file)[1:]]
            found += [row[9] for row in rows if row[3] == LISTENS and _port_in(row[1]) == port]
    return found


def _port_in(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _sockets_of(pid: int) -> set[str]:
    """Return what the file descriptors of a process lead to."""
    folder, found = f"/proc/{pid}/fd/", set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.add(os.readlink(folder + name))
    return found
