"""The targets of the load benchmark: llamadoze, its model server, and haproxy.

Owns their processes, their CPU cores, and the measurement of what they use. Nothing is pinned with
fewer than four cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.bench.traffic_exchange import KEY, connect
from tests.bench.traffic_results import DIRECT, HAPROXY, OURS
from tests.ports import free_port
from tests.system.daemon import LLAMADOZE as COMMAND
from tests.system.daemon import Process, wait_for, write

SERVER = Path(__file__).with_name("traffic_server.py")
CORES = sorted(os.sched_getaffinity(0))
LLAMADOZE, OTHERS, MODEL_SERVER, CLIENT = CORES[:1], CORES[:2], CORES[2:3], CORES[3:4]
BENCHMARK = CORES[1:2]
HAPROXY_FILE = """
global
    nbthread {threads}
    maxconn 4096
defaults
    mode http
    option http-no-delay
    option abortonclose
    option http-keep-alive
    http-reuse always
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-request 1h
    timeout http-keep-alive 1h
frontend clients
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    server m 127.0.0.1:{server_port}
"""


@attrs.frozen
class Target:
    """A program that a load is sent to.

    Attributes:
        name: in the tables.
        port: on this machine.
        pid: of the process that listens on the port.
        server_port: of the model server behind it.
    """

    name: str
    port: int
    pid: int
    server_port: int

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that all threads of the process have used."""
        return cpu_seconds_of(self.pid)

    def memory(self) -> float:
        """Return the bytes that the process holds in memory."""
        return memory_of(self.pid)


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU seconds that all threads of a process have used.

    They come from the process's CPU clock, see clock_getcpuclockid(3). ``/proc/PID/stat`` has the
    same value, but in ticks of 10 ms. Those are too coarse for haproxy in a short load.
    """
    return time.clock_gettime(~pid << 3 | 2)


def memory_of(pid: int) -> float:
    """Return the bytes that a process holds in memory."""
    with open(f"/proc/{pid}/status") as file:
        (kilobytes,) = (int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    return kilobytes * 1024


def server_command(port: str) -> str:
    """Return the command that starts the mock model server."""
    return f"{sys.executable} -I -S {SERVER} --port {port}"


def pin(pid: int, cores: Sequence[int]) -> None:
    """Keep all threads of a process on these cores."""
    if len(CORES) >= 4:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def worked_and_stolen() -> tuple[int, int]:
    """Return the ticks that the cores have worked, and those that the host took from them."""
    user, nice, system, _, _, irq, softirq, stolen = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return user + nice + system + irq + softirq, stolen


@contextmanager
def llamadoze() -> Iterator[tuple[Target, Target]]:
    """Start the daemon with one model; yield the daemon and the model's server."""
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), **configuration(free_port(1)))
        with _logging_to_file(file, Path(folder) / "log") as daemon:
            status, answer = daemon.chat("m")
            assert status == 200, answer
            running = daemon.running()["m"]
            port = int(running["proxy"].rpartition(":")[2])
            server = Target(DIRECT, port, running["pid"], port)
            pin(server.pid, MODEL_SERVER)
            pin(daemon.process.pid, LLAMADOZE)
            yield Target(OURS, daemon.port, daemon.process.pid, port), server


def configuration(start_port: int) -> dict[str, Any]:
    """Return the daemon's configuration: the mock model server as its model `m`."""
    model = {
        "cmd": server_command("${PORT}"),
        "proxy": "http://127.0.0.1:${PORT}",
        "concurrencyLimit": 2000,
    }
    return {"startPort": start_port, "models": {"m": model}, "apiKeys": [KEY]}


@contextmanager
def _logging_to_file(config: str, log: Path) -> Iterator[Process]:
    """Start the daemon with its log in a file, so that no reader wakes up for each line."""
    port = free_port(1)
    options = ["--config", config, "--listen", f"127.0.0.1:{port}", "--state-dir", str(log.parent)]
    with log.open("wb") as file:
        process = subprocess.Popen([COMMAND, *options], stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: b"Listening on" in log.read_bytes())
            yield Process(process, port, key=KEY)
        finally:
            process.terminate()
            process.wait(20)


def haproxy_program() -> str | None:
    """Return where haproxy is installed, even if only root's PATH leads there."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def haproxy(server_port: int, threads: int) -> Iterator[Target | None]:
    """Start haproxy in front of the same model server; yield none if it is not installed."""
    program = haproxy_program()
    if not program:
        yield None
        return
    port = free_port(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "haproxy.cfg"
        file.write_text(HAPROXY_FILE.format(threads=threads, port=port, server_port=server_port))
        with subprocess.Popen([program, "-db", "-q", "-f", str(file)]) as process:
            try:
                wait_for(lambda: process.poll() is not None or listens(port))
                assert process.poll() is None, "haproxy has ended"
                pin(process.pid, OTHERS)
                yield Target(HAPROXY, port, process.pid, server_port)
            finally:
                process.terminate()


def listens(port: int) -> bool:
    """Whether a connection to this port is accepted."""
    with contextlib.suppress(OSError), connect(port):
        return True
    return False


def play(load: Sequence[str], target: Target) -> dict[str, float]:
    """Run the load generator with a load; add what the target used meanwhile."""
    program = [sys.executable, "-m", "tests.bench.traffic_client"]
    command = [*program, *load, "--port", str(target.port)]
    if load[0] == "disconnects":
        command += ["--server-port", str(target.server_port)]
    before = target.cpu_seconds()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, CLIENT)
        text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{target.name} cannot be measured: {' '.join(load)} failed")
    time.sleep(0.05)  # the end of the connections is work, too
    used = target.cpu_seconds() - before
    figures: dict[str, float] = json.loads(text)
    figures["cpu"] = used / (figures["count"] or 1)
    return {**figures, "memory": target.memory()}
