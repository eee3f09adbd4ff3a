"""Processes that tests start: each script prints the pids that matter, then ``up``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from supervisor.processes.brood import BROOD
from supervisor.processes.census import argv_of, is_alive, start_of
from supervisor.processes.kin import Kin

OWNER = f"tests{os.getpid()}"  # other tests run at the same time
OWN, OTHER = f"{OWNER}.a.1", f"{OWNER}.b.1"
LEFT_THE_SESSION = "setsid sleep 60 & echo $!"
LEFT_ITS_PARENT = "(sleep 60 & echo $!)"
LEFT_BOTH = "setsid sh -c 'sleep 60 & echo $!'"
LEFT_ITS_ENVIRONMENT = "(env -i sleep 60 & echo $!)"
LEFT_ALL = "env -i setsid sh -c 'sleep 60 & echo $!'"


def pids_in(said: bytes) -> list[int]:
    """Return the pids that a script has printed."""
    return [int(line) for line in said.decode().split() if line.isdecimal()]


async def until_said(output: list[bytes], word: bytes = b"up\n") -> list[int]:
    """Wait for a word of a script; return the pids that it printed before."""
    with trio.fail_after(5):
        while word not in b"".join(output):
            await trio.sleep(0.005)
        pids = pids_in(b"".join(output))
        while not all(map(is_settled, pids)):
            await trio.sleep(0.001)
    return pids


def is_settled(pid: int) -> bool:
    """Whether a process already runs its final program, or prints its own pid."""
    argv = argv_of(pid)
    return argv[0] == "sleep" or "echo $$" in " ".join(argv)


async def until_gone(pids: Iterable[int], limit: float = 5) -> None:
    """Wait for the end of processes."""
    with trio.fail_after(limit):
        while any(map(is_alive, pids)):
            await trio.sleep(0.005)


def kill(pids: Iterable[int]) -> None:
    """Kill what a test has left."""
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running(script: str, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Run a script in a new session until it prints ``up``; then kill it and what it named."""
    process = subprocess.Popen(
        ["sh", "-c", f"{script}\necho up\nread _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **more},
    )
    assert process.stdout
    said = b""
    while not said.endswith(b"up\n"):
        line = process.stdout.readline()
        assert line, said
        said += line
    pids = pids_in(said)
    try:
        deadline = time.monotonic() + 5
        while not all(map(is_settled, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield process, pids
    finally:
        kill([process.pid, *pids])
        process.communicate()


def parent(script: str, **more: str) -> int:
    """Run a script to its end; return the pid that it printed, of a process that goes on."""
    env = {**os.environ, **more}
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, env=env) as process:
        BROOD.add(process.pid)
        assert process.stdout
        number = int(process.stdout.readline())
        while not is_settled(number):
            time.sleep(0.001)
    BROOD.remove(process.pid)
    return number


def kin_of(process: subprocess.Popen[bytes], token: str = "") -> Kin:
    """Return the life of a process."""
    return Kin(process.pid, start_of(process.pid) or 0, token)
