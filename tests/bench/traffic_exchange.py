"""One HTTP exchange of a load: the request, its answer as it arrives, and the loop for many.

Only what a load needs is parsed, so that the generator is faster than what it measures.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

import attrs

READ_SIZE = 65536
TOKEN = b'data: {"sent":'
LAST = b"data: [DONE]"

KEY = "sk-traffic"  # llamadoze checks this key; other targets ignore it


def post(body: bytes) -> bytes:
    """Return a request as clients send it."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@attrs.define(eq=False)
class Answer:
    """One HTTP answer, read as it comes.

    Attributes:
        status: 0 until the head has arrived.
        done: whether the whole answer has arrived.
        closes: whether the connection takes no further request.
    """

    status: int = 0
    done: bool = False
    closes: bool = False
    _unread: bytes = b""
    _chunked: bool = False
    _left: int = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes that have arrived; return the part of the body in them.

        Raises:
            ValueError: the bytes are not HTTP, or more than one answer.
        """
        self._unread += data
        if not self.status:
            self._read_head()
        if not self.status:
            return b""
        body = b"".join(self._chunks()) if self._chunked else self._counted()
        if self.done and self._unread:
            raise ValueError("more than one answer")
        return body

    def _read_head(self) -> None:
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return
        head = head.lower()
        self.status = int(head[9:12])
        self.closes = b"\r\nconnection: close" in head
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        if not self._chunked:
            self._left = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r")[0])
        self._unread = rest

    def _counted(self) -> bytes:
        body, self._unread = self._unread[: self._left], self._unread[self._left :]
        self._left -= len(body)
        self.done = self._left == 0
        return body

    def _chunks(self) -> Iterator[bytes]:
        while not self.done:
            line, found, rest = self._unread.partition(b"\r\n")
            size = int(line, 16) if found else 0
            if not found or len(rest) < size + 2:
                return
            self.done = size == 0
            self._unread = rest[size + 2 :]
            yield rest[:size]


@attrs.define(eq=False)
class Exchange:
    """A request, and the answer to it so far.

    Attributes:
        request: which `begin` sends each time.
        began: when the request was sent.
        head_at: when the first byte of the answer arrived; 0 before.
        body: the part of the answer's body that has arrived, without the events that were read.
        sent: when each token was sent, by its own text.
        arrived: when each token arrived.
        ended: whether the stream's last event has arrived.
        failed: whether a complete answer can no longer arrive.
    """

    request: bytes
    connection: socket.socket
    answer: Answer = attrs.field(factory=Answer)
    began: float = 0
    head_at: float = 0
    body: bytes = b""
    sent: list[float] = attrs.field(factory=list)
    arrived: list[float] = attrs.field(factory=list)
    ended: bool = False
    failed: bool = False

    @property
    def over(self) -> bool:
        """Whether there is nothing more to read."""
        return self.failed or self.answer.done

    def begin(self) -> None:
        """Send the request, and forget the answer before."""
        self.answer = Answer()
        self.head_at, self.body, self.sent, self.arrived = 0, b"", [], []
        self.ended = self.failed = False
        self.began = time.monotonic()
        try:
            self.connection.sendall(self.request)
        except OSError:
            self.failed = True

    def read(self) -> float:
        """Read what has arrived; return the time of the reading."""
        try:
            data = self.connection.recv(READ_SIZE)
            now = time.monotonic()
            self.head_at = self.head_at or now
            self.body += self.answer.feed(data)
        except (OSError, ValueError):
            data, now = b"", time.monotonic()
        self.failed = not data or self.answer.status not in (0, 200)
        return now

    def read_events(self) -> None:
        """Read the events of a stream that have arrived."""
        now = self.read()
        *events, self.body = self.body.split(b"\n\n")
        for event in events:
            if event.startswith(TOKEN):
                self.sent.append(float(event[len(TOKEN) : event.index(b",")]))
                self.arrived.append(now)
            self.ended = event == LAST


@attrs.define(eq=False)
class Loop:
    """Exchanges, each on a connection of its own to one port.

    Attributes:
        exchanges: the open ones, by the file descriptors of their connections.
    """

    port: int
    exchanges: dict[int, Exchange] = attrs.field(factory=dict)
    _poller: select.epoll = attrs.field(factory=select.epoll)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        for exchange in list(self.exchanges.values()):
            self.close(exchange)
        self._poller.close()

    def open(self, request: bytes) -> Exchange:
        """Return an exchange on a new connection; the caller begins it."""
        exchange = Exchange(request, connect(self.port))
        self._add(exchange)
        return exchange

    def reopen(self, exchange: Exchange) -> None:
        """Give the exchange a new connection."""
        self.close(exchange)
        exchange.connection = connect(self.port)
        self._add(exchange)

    def close(self, exchange: Exchange) -> None:
        """Close the exchange's connection, which ends the request."""
        del self.exchanges[exchange.connection.fileno()]
        exchange.connection.close()

    def ready(self, seconds: float) -> list[Exchange]:
        """Wait until there is something to read; return the exchanges that have it."""
        found = self._poller.poll(max(seconds, 0))
        return [self.exchanges[number] for number, _ in found]

    def _add(self, exchange: Exchange) -> None:
        self.exchanges[exchange.connection.fileno()] = exchange
        self._poller.register(exchange.connection, select.EPOLLIN)
