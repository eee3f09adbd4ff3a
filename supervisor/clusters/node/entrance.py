"""The entrance to a model server on a node: only visitors with the key of its life get through.

Owns the greeting, and the forwarding of bytes after it. The launcher answers questions about the
server. The module runs there as text: Python 3.8 and nothing else.
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
TRAFFIC, CONTROL = b"T", b"C"  # the purpose of a visit
OPEN, REFUSED = b"K", b"R"
LONGEST_HELLO = 5.0  # seconds for a visitor to show the key
MOST_STRANGERS = 256  # visitors at a time that have not shown the key yet
LONGEST_LINE = 1 << 20  # bytes of a question


def proof_of(key: bytes, who: bytes, *nonces: bytes) -> bytes:
    """Return a proof of the key that is valid only for this conversation and this side of it."""
    return hmac.new(key, who + b"".join(nonces), hashlib.sha256).digest()


class Entrance:
    """Where visitors come in.

    Attributes:
        key: the key that they must show.
        host: the host that the server listens on, on this node.
        port: the port that the server listens on.
        answer: answers a question of the server's owner.
        strangers: the visitors that have not shown the key yet.
        controls: the connections of the server's owner, which asks.
        has_been_owned: whether an owner has ever connected.
    """

    def __init__(
        self, key: bytes, host: str, port: int, answer: Callable[[dict[str, Any]], Awaitable[Any]]
    ) -> None:
        self.key, self.host, self.port, self.answer = key, host, port, answer
        self.strangers: dict[Visitor, None] = {}  # in the order in which they came
        self.has_been_owned = False
        self.controls: set[Visitor] = set()
        self._tasks: set[asyncio.Future[None]] = set()

    def tell(self, **facts: Any) -> None:
        """Send a message to the server's owner."""
        for one in self.controls:
            one.tell(facts)

    def keep(self, work: Awaitable[None]) -> None:
        """Do some work in the background."""
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
        """Ask for a proof; if too many visitors are being asked, the first of them must go."""
        self.transport = transport
        strangers = self.entrance.strangers
        if len(strangers) >= MOST_STRANGERS:  # a visitor with the key shows it at once
            next(iter(strangers)).transport.abort()
            del strangers[next(iter(strangers))]
        strangers[self] = None
        _keep_alive(transport)
        self.timer = asyncio.get_running_loop().call_later(LONGEST_HELLO, transport.abort)
        transport.write(self.nonce)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        self.take(data)

    def _hello(self, data: bytes) -> None:
        """Check the hello: the purpose of the visit, a nonce, and the proof of the key."""
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
        """Keep what arrives before the server was reached."""
        self.begun += data

    def _welcome(self, word: bytes, theirs: bytes) -> None:
        """Say whether the visit goes on, and prove that the launcher has the key, too."""
        proof = proof_of(self.entrance.key, b"launcher" + word, self.nonce, theirs)
        self.transport.write(word + proof)

    async def _connect(self, theirs: bytes) -> None:
        """Connect to the server, and forward to it."""
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
        """Take questions, one on each line."""
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
        """Pass the end of the stream on; the answer is still passed back."""
        if self.far is None:
            return False
        with contextlib.suppress(OSError, RuntimeError):
            self.far.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Make the server wait for a slow reader."""
        if self.far is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the server go on."""
        if self.far is not None:
            self.far.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the visitor, and end its connection to the server."""
        self.entrance.strangers.pop(self, None)
        self.entrance.controls.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        if self.far is not None:
            self.far.transport.abort()


class Far(asyncio.Protocol):
    """The connection to the server for one visitor."""

    def __init__(self, near: Visitor) -> None:
        self.near = near
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.near.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on."""
        with contextlib.suppress(OSError, RuntimeError):
            self.near.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Make the client wait for a slow server."""
        self.near.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the client go on."""
        self.near.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """End the visit the way the server has ended it."""
        if error is None:
            self.near.transport.close()
        else:
            self.near.transport.abort()


def _keep_alive(transport: Any) -> None:
    """Make a connection end if its other side is gone."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
