"""What an attack costs others: the longest wait for /health, and the daemon's memory.

This module owns the measuring. `inputs` says what is sent, `behaviour` how clients behave.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import attrs
import psutil
import trio

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
BETWEEN = 0.004  # seconds between an answer and the next request for /health
PATIENCE = 60.0  # seconds for an answer

Attack = Callable[[int], Awaitable[str]]
"""An attack on a port; it returns the answer."""


@attrs.define
class Measured:
    """The result of one attack.

    Attributes:
        answer: the first answer's status, or "closed"; empty if the answer took too long.
        wait: the longest that another client waited, in seconds.
        memory: the most bytes that the daemon held beyond what it held before.
    """

    answer: str = ""
    wait: float = 0.0
    memory: int = 0


async def measured(attack: Attack, port: int, pid: int) -> Measured:
    """Attack the daemon while another connection asks for /health all the time."""
    found = Measured()
    daemon = psutil.Process(pid)
    before = daemon.memory_info().rss
    stream = await trio.open_tcp_stream("127.0.0.1", port)

    async def ask_for_health() -> None:
        while True:
            asked = trio.current_time()
            await stream.send_all(HEALTH)
            await stream.receive_some(4096)
            found.wait = max(found.wait, trio.current_time() - asked)
            found.memory = max(found.memory, daemon.memory_info().rss - before)
            await trio.sleep(BETWEEN)

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_health)
        with trio.move_on_after(PATIENCE):
            found.answer = await attack(port)
        await trio.sleep(3 * BETWEEN)  # work that the daemon does after the answer counts, too
        nursery.cancel_scope.cancel()
    return found


async def answer_to(port: int, data: bytes) -> str:
    """Send bytes on a new connection; return the first answer's status, or that it was closed."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    said = bytearray()
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):  # refused before all was sent
                await stream.send_all(data)

        nursery.start_soon(send)
        try:
            while b"\r\n" not in said and (piece := await stream.receive_some(65536)):
                said += piece
            with trio.move_on_after(PATIENCE / 2):
                while await stream.receive_some(65536):
                    pass
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()
    line = bytes(said.partition(b"\r\n")[0]).split()
    return line[1].decode() if len(line) > 1 else "closed"
