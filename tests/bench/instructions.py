"""How many of its own instructions the daemon needs for a request and a token, by callgrind.

Unlike times, the counts do not depend on the machine's other work: they repeat within about 1 %.
They leave out the kernel's instructions. Without valgrind there are no counts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf, nan
from pathlib import Path
from statistics import median

import attrs

from tests.bench.figures import Figure
from tests.bench.traffic_client import SMALL, go_on, streams
from tests.bench.traffic_exchange import Loop, post
from tests.bench.traffic_targets import configuration
from tests.ports import free_port
from tests.system.daemon import wait_for, write

ROOT = Path(__file__).parents[2]
CLIENTS = 16
PATIENCE = 180.0  # seconds: a program runs fifty times slower here
CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no")


@attrs.frozen
class Counted:
    """A daemon whose instructions callgrind counts.

    Attributes:
        pid: of the daemon's process.
        port: on which the daemon listens.
        folder: where callgrind writes its counts.
    """

    pid: int
    port: int
    folder: Path

    def during(self, load: Callable[[], int]) -> float:
        """Return the instructions for each item that a load has done."""
        self._control("--zero")
        self._control("--instr=on")
        count = load()
        self._control("--dump")
        self._control("--instr=off")
        return self._last_dump() / count

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self.pid)]
        subprocess.run(command, check=True, capture_output=True)

    def _last_dump(self) -> int:
        newest = max(self.folder.glob("counts.*"), key=lambda file: int(file.suffix[1:]))
        found = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)
        assert found, newest.read_text()[:1000]
        return int(found[1])


@contextmanager
def counted() -> Iterator[Counted]:
    """Start the daemon under callgrind."""
    port = free_port(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = write(folder, **configuration(free_port(1)), healthCheckTimeout=PATIENCE)
        options = ["--config", file, "--listen", f"127.0.0.1:{port}", "--state-dir", name]
        count = [*CALLGRIND, f"--callgrind-out-file={folder / 'counts'}"]
        command = [*count, sys.executable, "-m", "proxy", *options]
        # One hash seed, or each start would lay out its dicts and sets in another way.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=name
            )
        try:
            wait_for(lambda: _listens(process, log), PATIENCE)
            yield Counted(process.pid, port, folder)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _listens(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return b"Listening on" in log.read_bytes()


def requests(port: int, count: int) -> int:
    """Send requests as several clients until there are that many answers; return the count."""
    left = count - CLIENTS
    with Loop(port) as loop:
        for one in [loop.open(post(SMALL)) for _ in range(CLIENTS)]:
            one.begin()
        while loop.exchanges:
            for one in loop.ready(PATIENCE):
                one.read()
                assert not one.failed, one.body
                if one.over:
                    go_on(loop, one, inf if left > 0 else 0)
                    left -= 1
    return count


def tokens(port: int, count: int) -> int:
    """Read streams, each of that many tokens; return how many tokens arrived."""
    rate = 10  # slow enough for each token to be passed on before the next
    return int(streams(port, CLIENTS, rate, count / rate)["count"])


def measure(quick: bool = False) -> list[Figure]:
    """Count both; without valgrind the figure has no value."""
    goal = "<= 480"
    if not shutil.which("valgrind"):
        return [Figure("instructions of a small request, 16 clients", nan, "k", goal)]
    rounds, count = (1, 160) if quick else (3, 1600)  # enough for connecting to count little
    with counted() as daemon:
        requests(daemon.port, count)  # work that is done only once
        tokens(daemon.port, 10)
        asked = [daemon.during(lambda: requests(daemon.port, count)) / 1e3 for _ in range(rounds)]
        streamed = daemon.during(lambda: tokens(daemon.port, 40))
    return [
        Figure("instructions of a small request, 16 clients", median(asked), "k", goal, asked),
        Figure("instructions of a token, streams of 40", streamed / 1e3, "k"),
    ]
