"""The program that stands for a model server on a node: it starts the server and leads to it.

Owns the server's port there, what its owner is told, and how the step ends. The module runs there
as text: Python 3.8 and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any

from supervisor.clusters.node.entrance import Entrance, Visitor
from supervisor.clusters.node.measuring import gpu_memory, host_memory, is_listening
from supervisor.clusters.node.members import BETWEEN_LOOKS, CANNOT_START, Server

ORDER = "LLAMADOZE_ORDER"  # the variable that says what to run
REPORT = "llamadoze-step "  # the beginning of the line that says where the server is
LOWEST, HIGHEST, USUAL_FIRST = 10_000, 65_535, 32_768  # ports
MOST_TRIED = 500
LONGEST_FAREWELL = 0.5  # seconds for the owner to take the news of the end
LONGEST_GREETING = 3.0  # seconds for the owner to come for it, if the server ends at once


class CannotLaunch(Exception):
    """There is no server; the text says why."""


class Launcher:
    """A server and its entrance.

    Attributes:
        server: the server's processes.
        entrance: the way to the server.
        notice: the signal by which Slurm has told the step to end; empty before that.
    """

    def __init__(self, server: Server, key: bytes, host: str, port: int) -> None:
        self.server = server
        self.entrance = Entrance(key, host, port, self.answer)
        self.notice = ""

    def hear(self, number: int) -> None:
        """Take Slurm's notice that the step must end: the owner decides how, if it is connected."""
        self.notice = signal.Signals(number).name
        if self.entrance.controls:
            self.entrance.tell(notice=self.notice)
        else:
            self.entrance.keep(self.server.end())

    async def answer(self, asked: dict[str, Any]) -> Any:
        """Answer one question of the server's owner."""
        server, what = self.server, asked.get("what")
        if what == "state":
            return {"status": server.exit_status(), "pid": server.pid, "notice": self.notice}
        if what == "members":
            return server.members()
        if what == "own":
            return is_listening(server.members(), self.entrance.port)
        if what == "weigh":
            return await self._weigh()
        if what == "end":
            self.entrance.keep(server.end(asked.get("grace")))
        return None

    async def _weigh(self) -> dict[str, Any]:
        pids = self.server.members()
        gpus = await asyncio.get_running_loop().run_in_executor(None, gpu_memory, pids)
        return {**host_memory(pids), **gpus}

    async def run(self) -> int:
        """Wait for the server to end, report it, and return its exit status."""
        await self.server.has_ended.wait()
        await self.server.end()
        status = self.server.exit_status() or 0
        self.entrance.tell(exited=status)
        loop, entrance = asyncio.get_running_loop(), self.entrance
        over = loop.time() + (LONGEST_FAREWELL if entrance.has_been_owned else LONGEST_GREETING)
        while loop.time() < over and (entrance.controls or not entrance.has_been_owned):
            await asyncio.sleep(BETWEEN_LOOKS)
        return status


def listening_on(host: str, ports: Iterable[int]) -> socket.socket | None:
    """Listen on the first of these ports that is free; None if none is."""
    for port in ports:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError:
            listening.close()
        else:
            return listening
    return None


def usual_ports() -> list[int]:
    """Return some ports below the range that the system gives to outgoing connections.

    A port of that range may be given to a client that tries to reach a server there before it
    listens. Then the client reaches itself, and the server cannot listen any more.
    """
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first = int(file.read().split()[0])
    except (OSError, ValueError):
        first = USUAL_FIRST
    below = range(LOWEST, first) if first > LOWEST else range(LOWEST, HIGHEST)
    return random.sample(below, min(len(below), MOST_TRIED))


def free_port(host: str, wanted: int) -> int:
    """Return a free port, or the wanted port if it is free."""
    found = listening_on(host, [wanted] if wanted else usual_ports())
    if found is None:
        where = f"{host}:{wanted}" if wanted else host
        raise CannotLaunch(f"{where} cannot be listened on: it is in use by another program")
    with found:
        port: int = found.getsockname()[1]
        return port


def entrance_on(ports: tuple[int, int]) -> socket.socket:
    """Listen for visitors on the node's network, on one of these ports, or on any."""
    first, last = ports
    every = "0.0.0.0"  # noqa: S104 -- the key keeps others out
    found = listening_on(every, range(first, last + 1) if last else usual_ports())
    if found is None:
        raise CannotLaunch(f"no port from {first} to {last} is free for the entrance (ports)")
    return found


def put(text: str, host: str, port: int) -> str:
    """Fill the address into a text."""
    return text.replace("${HOST}", host).replace("${PORT}", str(port))


def say(**facts: Any) -> None:
    """Write a line for the reader of the step's output."""
    sys.stdout.write("\n" + REPORT + json.dumps(facts) + "\n")  # the server may be in mid-line
    sys.stdout.flush()


def made(order: dict[str, Any]) -> Launcher:
    """Return the launcher of a server that is not started yet."""
    host = order["host"]
    port = free_port(host, order["port"])
    env = {name: put(value, host, port) for name, value in os.environ.items()}
    env.update(order["env"])
    for name in order["hidden"]:
        env.pop(name, None)
    argv = [put(word, host, port) for word in order["argv"]]
    server = Server(argv, env, order["grace"])
    return Launcher(server, bytes.fromhex(order["key"]), host, port)


async def launch(order: dict[str, Any]) -> int:
    """Run a server from its start to its end; return its exit status."""
    loop = asyncio.get_running_loop()
    launcher = made(order)
    listening = entrance_on((order["ports"][0], order["ports"][1]))
    await loop.create_server(lambda: Visitor(launcher.entrance), sock=listening)
    loop.add_signal_handler(signal.SIGCHLD, launcher.server.reap)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, launcher.hear, number)
    if failure := launcher.server.start():
        raise CannotLaunch(failure)
    launcher.server.reap()  # it may have ended already
    say(
        port=launcher.entrance.port,
        entrance=listening.getsockname()[1],
        job=os.environ.get("SLURM_JOB_ID", ""),
        step=os.environ.get("SLURM_STEP_ID", ""),
        node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
    )
    status = await launcher.run()
    return status if status >= 0 else 128 - status


def main() -> None:
    """Run what the environment says."""
    try:
        status = asyncio.run(launch(json.loads(os.environ.pop(ORDER))))
    except CannotLaunch as error:
        say(failure=str(error))
        status = CANNOT_START
    sys.exit(status)


if __name__ == "__main__":
    main()
