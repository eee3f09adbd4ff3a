"""Other proxies that are measured beside llamadoze: ``PEER='name=command {config} {listen}'``.

Each peer starts with a configuration file that llama-swap and llamadoze read alike. The peer
starts its own mock model server on a known port. This module ends both.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import attrs
import psutil

from tests.bench.traffic_client import SMALL
from tests.bench.traffic_exchange import KEY
from tests.bench.traffic_results import DIRECT, HAPROXY, OURS
from tests.bench.traffic_targets import MODEL_SERVER, OTHERS, Target, listens, pin, server_command
from tests.conftest import stub_command
from tests.ports import free_port
from tests.system.daemon import wait_for

PATIENCE = 60.0  # seconds until the peer has answered once
HELP = "a peer is NAME=COMMAND, with {config} and {listen} in the command"


@attrs.frozen
class Peer:
    """Another proxy.

    Attributes:
        name: in the tables.
        command: that starts the proxy and becomes it, because its process is measured.
            ``{config}`` stands for the file, ``{listen}`` for host and port.
    """

    name: str
    command: str

    @classmethod
    def read(cls, text: str) -> Peer:
        """Read ``name=command``.

        Raises:
            ValueError: a part is missing, or another target has the name.
        """
        name, _, command = (part.strip() for part in text.partition("="))
        if not name or "{config}" not in command or "{listen}" not in command:
            raise ValueError(f"{HELP}; not {text.strip()!r}")
        if name in (DIRECT, HAPROXY, OURS):
            raise ValueError(f"{name!r} is measured anyhow: give the peer another name")
        return cls(name, command)

    def arguments(self, config: str, listen: str) -> list[str]:
        """Return the words of the command."""
        words = shlex.split(self.command)
        return [word.replace("{config}", config).replace("{listen}", listen) for word in words]


def peers_in(text: str) -> list[Peer]:
    """Read peers that are separated by semicolons.

    Raises:
        ValueError: a peer cannot be read, or two have the same name.
    """
    peers = [Peer.read(part) for part in text.split(";") if part.strip()]
    names = [peer.name for peer in peers]
    if len({*names}) < len(names):
        raise ValueError("two peers have the same name")
    return peers


def configuration(server_port: int) -> str:
    """Return a file for llama-swap whose model `m` is the mock model server on that port."""
    model = {
        "cmd": server_command(str(server_port)),
        "proxy": f"http://127.0.0.1:{server_port}",
        "checkEndpoint": "/health",
        "concurrencyLimit": 2000,
    }
    return json.dumps({"apiKeys": [KEY], "models": {"m": model}}, indent=1)


def taking_turns(ready: float, ports: Sequence[int]) -> str:
    """Return a file for llama-swap with two models, `a` and `b`, that take turns.

    Args:
        ready: seconds from a model's start until it answers its check.
        ports: of the two models.
    """
    models = {
        name: {
            "cmd": stub_command("--port", str(port), "--ready-after", str(ready)),
            "proxy": f"http://127.0.0.1:{port}",
            "checkEndpoint": "/health",
            "concurrencyLimit": 50,
        }
        for name, port in zip("ab", ports, strict=True)
    }
    return json.dumps({"models": models}, indent=1)


@contextmanager
def swapping(peer: Peer, ready: float) -> Iterator[int]:
    """Start a peer with two models that take turns; yield its port as soon as it listens."""
    port, first = free_port(1), free_port(2)
    ports = (first, first + 1)
    with tempfile.TemporaryDirectory() as folder:
        one = _begun(peer, folder, port, taking_turns(ready, ports))
        try:
            with suppress(AssertionError):
                wait_for(lambda: one.poll() is not None or listens(port), PATIENCE)
            if one.poll() is not None or not listens(port):
                raise SystemExit(f"{peer.name} does not listen:\n{Path(folder, 'log').read_text()}")
            yield port
        finally:
            for model in ports:
                _end(one, model)


@contextmanager
def running(peer: Peer) -> Iterator[Target]:
    """Start a peer and wait until it answers."""
    port, server_port = free_port(1), free_port(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        _begun(peer, folder, port, configuration(server_port)) as one,
    ):
        try:
            with suppress(AssertionError):
                wait_for(lambda: one.poll() is not None or _serves(port, server_port), PATIENCE)
            if one.poll() is not None or not _serves(port, server_port):
                raise SystemExit(f"{peer.name} does not answer:\n{Path(folder, 'log').read_text()}")
            server = listener(server_port)
            pin(one.pid, OTHERS)
            pin(server.pid, MODEL_SERVER)
            yield Target(peer.name, port, one.pid, server_port)
        finally:
            _end(one, server_port)


def _begun(peer: Peer, folder: str, port: int, text: str) -> subprocess.Popen[bytes]:
    file = Path(folder, "config.yaml")
    file.write_text(text)
    environment = {**os.environ, "XDG_STATE_HOME": folder}
    command = peer.arguments(str(file), f"127.0.0.1:{port}")
    with Path(folder, "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _end(process: subprocess.Popen[bytes], server_port: int) -> None:
    """End a peer, and the model server that it may have left."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(LookupError, psutil.NoSuchProcess):
        left = listener(server_port)
        left.kill()
        left.wait(10)


def _serves(port: int, server_port: int) -> bool:
    return answers(port) and listens(server_port)


def answers(port: int) -> bool:
    """Whether the model answers a small chat."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/v1/chat/completions", SMALL, headers)
        return connection.getresponse().status == 200
    return False


def listener(port: int) -> psutil.Process:
    """Return the process that listens on a port.

    Raises:
        LookupError: no process listens there.
    """
    for one in psutil.net_connections("tcp4"):
        if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid:
            return psutil.Process(one.pid)
    raise LookupError(f"nobody listens on port {port}")
