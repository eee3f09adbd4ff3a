"""Notifications for systemd: the daemon is ready, is stopping, or is still alive.

Owns the messages of sd_notify(3), which are datagrams to a socket that systemd names. Without such
a socket, nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket

import attrs
import trio

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


@attrs.frozen
class Systemd:
    """The service manager that started this process, if there is one.

    Attributes:
        name: the name of its socket; empty without one.
        watchdog: seconds of silence after which it restarts the daemon; 0 for never.
    """

    name: str = ""
    watchdog: float = 0.0

    @classmethod
    def of_environment(cls) -> Systemd:
        """Take systemd's variables out of the environment, so that no model server uses them."""
        name = os.environ.pop("NOTIFY_SOCKET", "")
        pid, limit = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
        is_ours = pid in ("", str(os.getpid())) and limit.isdecimal()
        watchdog = int(limit) / 1e6 if is_ours else 0.0
        return cls(f"\0{name[1:]}" if name.startswith("@") else name, watchdog)

    def tell(self, *words: str) -> None:
        """Send assignments. If they cannot be sent at once, they are dropped."""
        if self.name:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
            ):
                one.setblocking(False)
                one.sendto("\n".join(words).encode(), self.name)

    async def keep_telling(self) -> None:
        """Report that the daemon is alive, twice in the watchdog's time.

        The event loop that serves requests sends the report, so a loop that hangs sends none.
        """
        while self.watchdog:
            self.tell(ALIVE)
            await trio.sleep(self.watchdog / 2)
