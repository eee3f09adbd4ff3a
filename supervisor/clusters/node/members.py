"""A model server's processes on a node: how they are started, counted and ended.

Owns that none of them outlives the launcher. The module runs there as text: Python 3.8 and nothing
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess

BETWEEN_LOOKS = 0.05  # seconds
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CANNOT_START = 127  # as in a shell


class Server:
    """The model server with all that it has started.

    Attributes:
        argv: its command.
        env: its environment.
        grace: seconds between SIGTERM and SIGKILL.
        status: how it ended, as `waitpid` returns it; None while it lives.
    """

    def __init__(self, argv: list[str], env: dict[str, str], grace: float) -> None:
        self.argv, self.env, self.grace = argv, env, grace
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None  # kept, or its end is reaped unseen
        self.status: int | None = None
        self.has_ended = asyncio.Event()
        self.is_ending = False

    def start(self) -> str | None:
        """Start it; return why it cannot start, or None."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        launcher = os.getpid()

        def die_with_launcher() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != launcher:
                os._exit(CANNOT_START)

        try:
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_launcher,
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            return f"cmd cannot be started: {getattr(error, 'strerror', None) or error}"
        self.pid = self.process.pid
        return None

    def reap(self) -> None:
        """Take note of ended processes: the server, or orphans that it has left to the launcher."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self.pid and self.status is None:
                    self.status = status
                    self.has_ended.set()

    def members(self) -> list[int]:
        """Return its processes: all descendants of the launcher."""
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    parents[int(name)] = int(parent)
        ours, grown = {os.getpid()}, True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours |= more
            grown = bool(more)
        return sorted(ours - {os.getpid()})

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        for pid in self.members():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    async def end(self, grace: float | None = None) -> None:
        """Ask it to end, and kill it after its grace; returns when nothing is left."""
        self.is_ending = True
        patience = self.grace if grace is None else grace
        over = asyncio.get_running_loop().time() + patience
        self.signal(signal.SIGTERM)
        while self.members() and asyncio.get_running_loop().time() < over:
            await asyncio.sleep(BETWEEN_LOOKS)
        while self.members():
            self.signal(signal.SIGKILL)
            await asyncio.sleep(BETWEEN_LOOKS)

    def exit_status(self) -> int | None:
        """Return its exit status, negative for a signal; None while it lives."""
        if self.status is None:
            return None
        if os.WIFSIGNALED(self.status):
            return -os.WTERMSIG(self.status)
        return os.WEXITSTATUS(self.status)
