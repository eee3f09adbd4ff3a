"""What the daemon costs apart from requests: its start, a check of a file, its rest.

Each start is its own process, as an operator starts it, with compiled modules. The figures are
medians of several rounds, and the smallest value, because the rest is the machine's noise.
"""

from __future__ import annotations

import http.client
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import attrs

from tests.bench.figures import Figure
from tests.bench.peers import answers
from tests.bench.traffic_exchange import KEY
from tests.bench.traffic_results import MEBI, MILLI
from tests.bench.traffic_targets import configuration, cpu_seconds_of, memory_of
from tests.ports import free_port
from tests.system.daemon import LLAMADOZE, run, write

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
SETTLED = 1.5  # seconds after which every part of a start is over
REST = 8.0  # seconds
Question = Callable[[int], None]


@attrs.frozen
class Started:
    """A daemon that has begun to listen.

    Attributes:
        pid: of the daemon's process.
        port: on which the daemon listens.
        after: seconds from the command until it listens.
    """

    pid: int
    port: int
    after: float


@contextmanager
def starting() -> Iterator[Started]:
    """Start the daemon with one model; end it with the block."""
    port = free_port(1)
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), **configuration(free_port(1)))
        options = ["--config", file, "--listen", f"127.0.0.1:{port}", "--state-dir", folder]
        began = time.monotonic()
        with subprocess.Popen(
            [LLAMADOZE, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                said = _read_until(process, b"Listening on")
                yield Started(process.pid, port, time.monotonic() - began)
            finally:
                process.terminate()
        assert process.returncode == 0, said


def _read_until(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    """Read the lines of a log until one has the words; later lines are not read."""
    assert process.stdout
    said = b""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def healthy(port: int) -> None:
    assert _asked(port, "/health") == 200


def chat(port: int) -> None:
    """Chat with the model, which is ready as soon as its process runs."""
    assert answers(port)


def view(port: int) -> None:
    assert _asked(port, "/v1/models") == 200


def _asked(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        reply = connection.getresponse()
        reply.read()
    return reply.status


def starts(rounds: int) -> list[Figure]:
    """Start daemons and send each one request, which is its first."""
    listening: list[float] = []
    until: dict[Question, list[float]] = {healthy: [], chat: []}
    with starting():
        pass  # compiles what is not compiled yet
    for _ in range(rounds):
        for question, times in until.items():
            with starting() as daemon:
                listening.append(daemon.after)
                times.append(timed(question, daemon.port))
    return [
        *spread("from the command until it listens", listening, "<= 250"),
        *spread("from there to an answer of GET /health", until[healthy], "<= 15"),
        *spread("from there to a chat's answer, its model's start included", until[chat]),
    ]


def timed(question: Question, port: int) -> float:
    began = time.monotonic()
    question(port)
    return time.monotonic() - began


def spread(what: str, times: Sequence[float], goal: str = "") -> list[Figure]:
    """Return the median and the smallest value, in milliseconds."""
    return [
        Figure(what, median(times) * MILLI, "ms", goal, [one * MILLI for one in times]),
        Figure("... the least", min(times) * MILLI, "ms"),
    ]


def checks(rounds: int) -> list[Figure]:
    """Check the example, and a file of fifty models."""
    models = {f"m{number}": {"cmd": "server --port ${PORT}"} for number in range(50)}
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), models=models)
        example = [_check(str(EXAMPLE)) for _ in range(rounds + 1)][1:]
        fifty = [_check(file) for _ in range(rounds)]
    return [
        *spread("check of config.example.yaml", example, "<= 100"),
        *spread("check of 50 models", fifty, "<= 100"),
    ]


def _check(file: str) -> float:
    began = time.monotonic()
    done = run("check", file)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout
    return took


def memory(rounds: int) -> list[Figure]:
    """Return the daemon's memory after GET /health only, after a chat, and after a view."""
    steps: dict[str, tuple[Question, str]] = {
        "memory, nothing asked but GET /health": (healthy, "<= 40"),
        "memory after one chat": (chat, ""),
        "memory after GET /v1/models": (view, ""),
    }
    held: dict[str, list[float]] = {what: [] for what in steps}
    for _ in range(rounds):
        with starting() as daemon:
            for what, (question, _goal) in steps.items():
                question(daemon.port)
                time.sleep(SETTLED)
                held[what].append(memory_of(daemon.pid) * MEBI)
    return [
        Figure(what, median(held[what]), "MiB", goal, held[what])
        for what, (_question, goal) in steps.items()
    ]


def at_rest() -> Figure:
    """Return the share of a core that the daemon uses without requests."""
    with starting() as daemon:
        chat(daemon.port)
        time.sleep(SETTLED)
        before = cpu_seconds_of(daemon.pid)
        time.sleep(REST)
        share = (cpu_seconds_of(daemon.pid) - before) / REST
    return Figure("at rest, one model ready: of a core", share * 100, "%", "< 0.2")


def measure(quick: bool = False) -> list[Figure]:
    """Measure everything; quick only checks that the measurement works."""
    if quick:
        return [*starts(1), *checks(1), *memory(1)]
    return [*starts(8), *checks(9), *memory(3), at_rest()]
