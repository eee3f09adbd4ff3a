"""A stand-in for a container engine: containers are its children and outlive their clients.

``engine_in(folder)`` starts an engine, and writes a client named ``docker`` into the folder. The
client knows ``run --rm --name N IMAGE COMMAND...`` and ``stop -t SECONDS N``. All other commands
fail, including ``inspect``. A container has the engine's environment, and nothing of its client's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

REMOVAL = 0.05  # seconds from a container's end until its name is free


class Containers(socketserver.ThreadingUnixStreamServer):
    """All containers by name; a container that is created but does not run yet is None."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str) -> None:
        super().__init__(path, _Wish)
        self.all: dict[str, subprocess.Popen[bytes] | None] = {}
        self.lock = threading.Lock()

    def create(self, name: str) -> bool:
        """Take a name, unless another container has it."""
        with self.lock:
            is_free = name not in self.all
            self.all.setdefault(name, None)
        return is_free

    def start(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        nowhere = subprocess.DEVNULL
        with self.lock:
            process = subprocess.Popen(
                argv, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
            )
            self.all[name] = process
        threading.Thread(target=self.remove, args=(name, process)).start()
        return process

    def remove(self, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
        if process is not None:
            process.wait()
            time.sleep(REMOVAL)
        with self.lock:
            del self.all[name]

    def stop(self, name: str, number: int, grace: float) -> bool:
        """Signal a container, and kill it after the grace; return whether it existed."""
        process = self.all.get(name)
        if process is None:
            return False
        process.send_signal(number)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
        while self.all.get(name) is process:
            time.sleep(0.01)
        return True

    def end(self) -> None:
        for process in list(self.all.values()):
            if process is not None:
                process.kill()


class _Wish(socketserver.StreamRequestHandler):
    """A request of one client: a line of JSON, with lines of JSON in return."""

    server: Containers

    def handle(self) -> None:
        wish = json.loads(self.rfile.readline() or '{"verb": ""}')
        if wish["verb"] == "run":
            self.run(wish["name"], wish["argv"])
        elif wish["verb"] == "stop":
            self.say(found=self.server.stop(wish["name"], wish["signal"], wish["grace"]))
        elif wish["verb"] == "list":
            self.say(**{name: one.pid for name, one in self.server.all.items() if one})

    def run(self, name: str, argv: list[str]) -> None:
        """Create a container, and start it unless its client has disconnected by then."""
        if not self.server.create(name):
            self.say(exit=125, error=f"Conflict. The container name {name!r} is already in use")
            return
        self.say(created=True)
        if not self.rfile.readline():
            self.server.remove(name)
            return
        process = self.server.start(name, argv)
        self.say(exit=process.wait())

    def say(self, **what: Any) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps(what).encode() + b"\n")
            self.wfile.flush()


def _wish(path: str, **what: Any) -> TextIO:
    with socket.socket(socket.AF_UNIX) as connection:  # the file keeps the connection open
        connection.connect(path)
        file = connection.makefile("rw")
    _tell(file, **what)
    return file


def _tell(file: TextIO, **what: Any) -> None:
    file.write(json.dumps(what) + "\n")
    file.flush()


def _run(path: str, words: list[str]) -> NoReturn:
    """Run a container; signals reach it once it has started, and end the client before that."""
    name, argv = words[2], words[4:]
    file = _wish(path, verb="run", name=name, argv=argv)
    answer = json.loads(file.readline())
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        sys.exit(answer["exit"])

    def relay(number: int, _: object) -> None:
        _wish(path, verb="stop", name=name, signal=number, grace=3600)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, relay)
    _tell(file, start=True)
    status: int = json.loads(file.readline())["exit"]
    sys.exit(status if status >= 0 else 128 - status)


def _stop(path: str, words: list[str]) -> NoReturn:
    grace, name = float(words[1]), words[2]
    file = _wish(path, verb="stop", name=name, signal=signal.SIGTERM, grace=grace)
    if not json.loads(file.readline())["found"]:
        sys.exit(f"Error response from daemon: No such container: {name}")
    sys.exit(0)


def _client(path: str, words: list[str]) -> NoReturn:
    if words[:3:2] == ["run", "--name"]:
        _run(path, words[1:])
    if words[:2] == ["stop", "-t"]:
        _stop(path, words[1:])
    sys.exit(f"docker: {words} is not known here")


def _serve(path: str) -> None:
    containers = Containers(path)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        containers.serve_forever()
    finally:
        containers.end()


class Engine:
    """An engine, as the test that starts it sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "engine.socket")

    def containers(self) -> dict[str, int]:
        """Return the pids of the running containers, by name."""
        with contextlib.closing(_wish(self.socket, verb="list")) as file:
            found: dict[str, int] = json.loads(file.readline())
        return found

    def write_client(self) -> None:
        me = shlex.join([sys.executable, "-I", "-S", __file__, self.socket])
        client = self.folder / "docker"
        client.write_text(f'#!/bin/sh\nexec {me} "$@"\n')
        client.chmod(0o755)

    def path(self) -> str:
        """Return a PATH with the engine's client first."""
        return f"{self.folder}:{os.environ['PATH']}"


@contextmanager
def engine_in(folder: Path) -> Iterator[Engine]:
    """Start an engine in its own folder; its containers end with it."""
    folder.mkdir()
    engine = Engine(folder)
    engine.write_client()
    process = subprocess.Popen([sys.executable, "-I", "-S", __file__, engine.socket])
    while not Path(engine.socket).exists():
        assert process.poll() is None
        time.sleep(0.01)
    try:
        yield engine
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    if sys.argv[2:]:
        _client(sys.argv[1], sys.argv[2:])
    _serve(sys.argv[1])
