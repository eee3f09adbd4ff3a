"""Models and servers for tests of places: what a file says, and which server answers where."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
import yaml

from configschema import Limits, Model, parse
from supervisor.places.running import Order
from supervisor.processes.memory import Held
from supervisor.sleep.actions import environment_of
from tests.conftest import stub_command

LIMITS = Limits(unload=2, stop=2, ready=5)


def model_of(**keys: object) -> Model:
    """Return the model that a file describes."""
    return with_port(5800, **keys)


def with_port(port: int, **keys: object) -> Model:
    """Return the model that a file describes; ``${PORT}`` is this port."""
    text = yaml.safe_dump({"startPort": port, "models": {"a": keys}})
    return parse(text).config.models["a"]


def order_for(model: Model, log_file: Path | None = None) -> Order:
    """Return the order to run a model's server."""
    return Order(
        model=model,
        limits=LIMITS,
        env=environment_of(model),
        hear=lambda _: None,
        log_file=log_file,
    )


async def scales(pid: int, host: bool) -> Held:
    """Return the pid as the amount, so that a test sees which process was weighed."""
    await trio.lowlevel.checkpoint()
    return Held(host=pid if host else None, gpu=pid)


def answers(port: int) -> bool:
    """Whether a server takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def stub_on(port: int) -> Iterator[int]:
    """Run a server that belongs to no model; yield its pid."""
    with subprocess.Popen(
        shlex.split(stub_command("--port", f"{port}")), start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + 5
            while not answers(port):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield process.pid
        finally:
            process.kill()


def engine_in(folder: Path, container: str) -> str:
    """Write a script that stands in for docker; return the PATH on which it is found.

    The server is no descendant of the script. The port names a container; `container` is its id.
    """
    stub = stub_command("--port", "$port")
    script = folder / "docker"
    script.write_text(
        f"""#!/bin/sh
home={shlex.quote(str(folder))}
echo "$@" >> "$home/asked"
for last; do port=$last; done
case $1 in
run) echo $$ > "$home/client"
     (env -u LLAMADOZE_LIFE setsid {stub} > /dev/null 2>&1 & echo $! > "$home/pid")
     while :; do sleep 0.05; done ;;
stop) kill -9 "$(cat "$home/pid")"; kill "$(cat "$home/client")" ;;
inspect) echo "$(cat "$home/pid") {container}" ;;
esac
""".replace("'$port'", "$port")
    )
    script.chmod(0o700)
    return f"{folder}:/usr/local/bin:/usr/bin:/bin"
