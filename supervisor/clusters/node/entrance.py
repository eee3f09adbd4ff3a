"""The entrance to a model server on a node: who shows the key of its life gets through.

Owns the greeting, and the way of the bytes from there on. What is asked of the launcher itself is
answered by its owner. It runs there as text: Python 3.8 and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

NONCE, PROOF = 16, 32  # bytes
TRAFFIC, CONTROL = b"T", b"C"  # what a visitor comes for
OPEN, REFUSED = b"K", b"R"
LONGEST_HELLO = 5.0  # seconds for who connects to show the key
MOST_STRANGERS = 256  # who may be about to show it at a time
LONGEST_LINE = 1 << 20  # bytes of a question


def proof_of(key: bytes, who: bytes, *nonces: bytes) -> bytes:
    """Return what shows that one has the key, for this conversation and this side of it alone."""
    return hmac.new(key, who + b"".join(nonces), hashlib.sha256).digest()


class Entrance:
    """Where visitors come in.

    Attributes:
        key: what they show.
        host: where the server listens on this node.
        port: on which port.
        answer: answers a question of who owns the server.
        strangers: who has not shown the key yet.
        controls: who owns the server, and asks.
        has_been_owned: whether somebody has come who does.
    """

    def __init__(
        self, key: bytes, host: str, port: int, answer: Callable[[dict[str, Any]], Awaitable[Any]]
    ) -> None:
        self.key, self.host, self.port, self.answer = key, host, port, answer
        self.strangers: dict[Visitor, None] = {}  # in the order of their coming
        self.has_been_owned = False
        self.controls: set[Visitor] = set()
        self._tasks: set[asyncio.Future[None]] = set()

    def tell(self, **facts: Any) -> None:
        """Tell whoever owns the server."""
        for one in self.controls:
            one.tell(facts)

    def keep(self, work: Awaitable[None]) -> None:
        """Do some work beside the rest."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Visitor(asyncio.Protocol):
    """A connection to the entrance: a stranger until the key is shown."""

    def __init__(self, entrance: Entrance) -> None:
        self.entrance = entrance
        self.transport: Any = None
        self.nonce = secrets.token_bytes(NONCE)
        self.begun = b""
        self.take: Callable[[bytes], None] = self._hello
        self.far: Far | None = None
        self.timer: Any = None

    def connection_made(self, transport: Any) -> None:
        """Ask for a proof; of too many who are asked the first must go."""
        self.transport = transport
        strangers = self.entrance.strangers
        if len(strangers) >= MOST_STRANGERS:  # who has the key shows it at once
            next(iter(strangers)).transport.abort()
            del strangers[next(iter(strangers))]
        strangers[self] = None
        _keep_alive(transport)
        self.timer = asyncio.get_running_loop().call_later(LONGEST_HELLO, transport.abort)
        transport.write(self.nonce)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self.take(data)

    def _hello(self, data: bytes) -> None:
        """Look at what is shown: what one comes for, a nonce, and the proof of the key."""
        self.begun += data
        length = 1 + NONCE + PROOF
        if len(self.begun) < length:
            return
        hello, self.begun = self.begun[:length], self.begun[length:]
        kind, theirs, shown = hello[:1], hello[1 : 1 + NONCE], hello[1 + NONCE :]
        wanted = proof_of(self.entrance.key, b"visitor" + kind, self.nonce, theirs)
        if kind not in (TRAFFIC, CONTROL) or not hmac.compare_digest(shown, wanted):
            self.transport.abort()
            return
        self.timer.cancel()
        self.entrance.strangers.pop(self, None)
        if kind == CONTROL:
            self._welcome(OPEN, theirs)
            self.entrance.controls.add(self)
            self.entrance.has_been_owned = True
            self.take = self._question
            self._question(b"")
        else:
            self.transport.pause_reading()
            self.take = self._early
            self.entrance.keep(self._connect(theirs))

    def _early(self, data: bytes) -> None:
        """Keep what comes before the server was reached."""
        self.begun += data

    def _welcome(self, word: bytes, theirs: bytes) -> None:
        """Say whether it goes on, and show that this is no stranger either."""
        proof = proof_of(self.entrance.key, b"launcher" + word, self.nonce, theirs)
        self.transport.write(word + proof)

    async def _connect(self, theirs: bytes) -> None:
        """Reach the server, and lead there."""
        loop, to = asyncio.get_running_loop(), self.entrance
        try:
            _, far = await loop.create_connection(lambda: Far(self), to.host, to.port)
        except OSError:
            self._welcome(REFUSED, theirs)
            self.transport.close()
            return
        if self.transport.is_closing():
            far.transport.abort()
            return
        self.far = far
        self._welcome(OPEN, theirs)
        if self.begun:
            far.transport.write(self.begun)
        self.take = far.transport.write
        self.transport.resume_reading()

    def _question(self, data: bytes) -> None:
        """Take questions, one in each line."""
        *lines, self.begun = (self.begun + data).split(b"\n")
        if len(self.begun) > LONGEST_LINE:
            self.transport.abort()
        for line in filter(None, lines):
            self.entrance.keep(self._answer(line))

    async def _answer(self, line: bytes) -> None:
        try:
            asked = json.loads(line)
            number = asked["id"]
        except (ValueError, LookupError, TypeError):
            self.transport.abort()
            return
        self.tell({"id": number, "said": await self.entrance.answer(asked)})

    def tell(self, said: dict[str, Any]) -> None:
        """Write a line."""
        if not self.transport.is_closing():
            self.transport.write(json.dumps(said).encode() + b"\n")

    def eof_received(self) -> bool:
        """Pass the end on; what comes back is still passed on."""
        if self.far is None:
            return False
        with contextlib.suppress(OSError, RuntimeError):
            self.far.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Let the server wait for who reads."""
        if self.far is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self.far is not None:
            self.far.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget it, and end what it led to."""
        self.entrance.strangers.pop(self, None)
        self.entrance.controls.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        if self.far is not None:
            self.far.transport.abort()


class Far(asyncio.Protocol):
    """The connection to the server that a visitor is led to."""

    def __init__(self, near: Visitor) -> None:
        self.near = near
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Be there."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.near.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on."""
        with contextlib.suppress(OSError, RuntimeError):
            self.near.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Let the client wait for the server."""
        self.near.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.near.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """End the visit, as the server has ended it."""
        if error is None:
            self.near.transport.close()
        else:
            self.near.transport.abort()


def _keep_alive(transport: Any) -> None:
    """Let a connection end whose other side is gone without a word."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
