"""A daemon that tests start as an operator does: in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import attrs
import psutil
import yaml

from tests import logevents
from tests.ports import free_port

STATE = tempfile.mkdtemp(prefix="llamadoze-tests-")
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
MOST_LINES = 500  # of a log that are checked against the table of events
LLAMADOZE = str(Path(sys.executable).with_name("llamadoze"))


@attrs.define(eq=False)
class Process:
    process: subprocess.Popen[bytes]
    port: int
    output: Path | None = None
    key: str = ""

    @property
    def lines(self) -> list[str]:
        """The complete lines that the daemon has written so far."""
        data = self.output.read_bytes() if self.output else b""
        return [line.decode() for line in data.split(b"\n")[:-1]]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log()]

    def said(self, words: str) -> bool:
        return any(words in line for line in self.events())

    def ask(
        self, method: str, path: str, body: object = None, limit: float = 120
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with urlopen(Request(url, data, headers, method=method), timeout=limit) as reply:
                text = reply.read()
                status = reply.status
        except HTTPError as error:
            text, status = error.read(), error.code
        return status, json.loads(text) if text[:1] in (b"{", b"[") else text

    @contextmanager
    def stream(self, path: str, body: object, limit: float = 60) -> Iterator[Iterator[str]]:
        """Post a body; leaving the block closes the connection, even if the answer is not read."""
        url, data = f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = Request(url, data, kind, method="POST")
        with urlopen(request, timeout=limit) as reply:  # noqa: S310 -- it is our own
            yield (line.decode() for line in reply)

    def chat(self, model: str, **more: object) -> tuple[int, Any]:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": model, "messages": messages, "max_tokens": 8, **more}
        return self.ask("POST", "/v1/chat/completions", body)

    def running(self) -> dict[str, dict[str, Any]]:
        return {row["model"]: row for row in self.ask("GET", "/running")[1]["running"]}

    def end(self, number: signal.Signals = signal.SIGTERM, limit: float = 30) -> tuple[int, float]:
        """Send a signal; return the exit status and the seconds until the end."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(limit)
        return status, time.monotonic() - began


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return subprocess.run(
        [LLAMADOZE, *arguments], capture_output=True, text=True, timeout=30, check=False, **more
    )


@contextmanager
def started(
    *arguments: str,
    wait: float = 30,
    host: str = "127.0.0.1",
    command: Sequence[str] = (LLAMADOZE,),
    port: int = 0,
    listen: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Start the command and wait until it listens."""
    port = port or free_port(1)
    # A file has all lines that were written before an answer; a pipe's reader may lag behind.
    with tempfile.NamedTemporaryFile(dir=STATE, suffix=".log", delete=False) as file:
        process = subprocess.Popen(
            [*command, *arguments, "--listen", listen or f"{host}:{port}"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": STATE, **(env or {})},
        )
    daemon = Process(process, port, Path(file.name))
    try:
        deadline = time.monotonic() + wait
        while not any("Listening on" in line for line in daemon.lines):
            assert process.poll() is None, daemon.lines
            assert time.monotonic() < deadline, daemon.lines
            time.sleep(0.01)
        yield daemon
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
    unknown = logevents.unknown(daemon.log()[:MOST_LINES])
    assert not unknown, unknown


def write(folder: Path, **whole: Any) -> str:
    """Write a configuration and return its path."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"startPort": free_port(), **whole}))
    return str(file)


def wait_for(condition: Callable[[], bool], limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: until then, it would just end."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def end(pids: list[int]) -> None:
    """Kill the processes that a failed test has left."""
    for pid in pids:
        if is_alive(pid):
            os.killpg(pid, signal.SIGKILL)
