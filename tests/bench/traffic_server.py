"""A mock model server for load: one thread, plain sockets and epoll, a heap of times to send.

``python -I -S tests/bench/traffic_server.py --port P`` answers GET /health and every POST. A JSON
body with ``"stream": true`` requests ``chunks`` tokens at ``rate`` per second, or with
``"silent"`` only a head. Each token says when it was sent. GET /disconnects lists the streams that
clients left, by the ``name`` in their body.
"""

from __future__ import annotations

import heapq
import json
import socket
import sys
import time
from select import EPOLLIN, EPOLLOUT, epoll
from typing import Any

READ_SIZE = 65536
BACKLOG = 4096
EVENT = b'data: {"sent": %17.6f, "choices":[{"delta":{"content":"tok"}}]}\n\n'
CHUNK = b"%x\r\n" % len(EVENT % 0) + EVENT + b"\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n"
STREAM_HEAD = HEAD % (b"text/event-stream", b"transfer-encoding: chunked")
UNKNOWN_LENGTH = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
COMPLETION = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! How can I help you today?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
}


def whole(body: bytes) -> bytes:
    """Return a complete JSON answer."""
    return HEAD % (b"application/json", b"content-length: %d" % len(body)) + body


HEALTHY = whole(b"{}")
COMPLETED = whole(json.dumps(COMPLETION).encode())


class Connection:
    """One client's connection, and the stream that is being sent on it, if any."""

    __slots__ = ("begin", "chunks", "ends", "name", "rate", "received", "sent", "socket", "unsent")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.received = b""
        self.unsent = b""
        self.ends = False  # whether the server closes it after the answer
        self.stream_none()

    def stream_none(self) -> None:
        self.name = ""  # of the stream; empty without one
        self.chunks = self.sent = 0
        self.rate = self.begin = 0.0


class Server:
    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.poller = epoll()
        self.poller.register(self.listener, EPOLLIN)
        self.connections: dict[int, Connection] = {}
        self.times: list[tuple[float, int, Connection]] = []  # when, tie-break, whose next chunk
        self.disconnects: list[dict[str, object]] = []

    def run(self) -> None:
        while True:
            for number, happened in self.poller.poll(self.wait()):
                if number in self.connections:
                    self.serve(self.connections[number], happened)
                else:
                    self.accept()
            self.send_chunks()

    def wait(self) -> float:
        """Return the seconds until the next chunk is due; -1 without one."""
        return max(self.times[0][0] - time.monotonic(), 0) if self.times else -1

    def accept(self) -> None:
        try:
            while True:
                accepted, _ = self.listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[accepted.fileno()] = Connection(accepted)
                self.poller.register(accepted, EPOLLIN)
        except OSError:  # no other client waits
            return

    def serve(self, connection: Connection, happened: int) -> None:
        if happened & EPOLLOUT:
            self.flush(connection)
        if not happened & ~EPOLLOUT:
            return
        try:
            piece = connection.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if piece:
            connection.received += piece
            self.answer_all(connection)
        else:
            self.close(connection)

    def answer_all(self, connection: Connection) -> None:
        """Answer each request that has arrived completely, until one is a stream."""
        while connection.received and not connection.name:
            head, found, rest = connection.received.partition(b"\r\n\r\n")
            lowered = head.lower()
            length = int(lowered.partition(b"\r\ncontent-length:")[2].partition(b"\r")[0] or 0)
            if not found or len(rest) < length:
                return
            connection.received = rest[length:]
            connection.ends = b"\r\nconnection: close" in lowered
            self.answer(connection, head, lowered, rest[:length])

    def answer(self, connection: Connection, head: bytes, lowered: bytes, body: bytes) -> None:
        if b"\r\ntransfer-encoding:" in lowered:
            connection.ends = True
            self.send(connection, UNKNOWN_LENGTH)
        elif head.startswith(b"POST "):
            self.complete(connection, body)
        elif head.startswith(b"GET /disconnects "):
            told, self.disconnects = self.disconnects, []
            self.send(connection, whole(json.dumps({"disconnects": told}).encode()))
        else:
            self.send(connection, HEALTHY)

    def complete(self, connection: Connection, body: bytes) -> None:
        asked: dict[str, Any] = json.loads(body) if b'"stream"' in body else {}
        if not asked.get("stream"):
            self.send(connection, COMPLETED)
            return
        connection.name = str(asked.get("name", "stream"))
        connection.chunks = int(asked.get("chunks", 10))
        connection.rate = float(asked.get("rate", 100))
        connection.begin = time.monotonic()
        self.send(connection, STREAM_HEAD)
        if connection.name and not asked.get("silent"):
            heapq.heappush(self.times, (connection.begin, id(connection), connection))

    def send_chunks(self) -> None:
        """Send every chunk that is due; a stream that is late catches up."""
        now = time.monotonic()
        while self.times and self.times[0][0] <= now:
            connection = self.times[0][2]
            if connection.sent < connection.chunks:
                connection.sent += 1
                self.send(connection, CHUNK % time.monotonic())
            if connection.sent < connection.chunks:
                due = connection.begin + connection.sent / connection.rate
                heapq.heapreplace(self.times, (due, id(connection), connection))
            else:
                heapq.heappop(self.times)
                self.finish(connection)

    def finish(self, connection: Connection) -> None:
        """End a stream, unless its client has disconnected."""
        if connection.name:
            connection.stream_none()
            self.send(connection, DONE)
            self.answer_all(connection)

    def send(self, connection: Connection, data: bytes) -> None:
        """Send what the connection takes, and keep the rest for later."""
        if connection.unsent:
            connection.unsent += data
            return
        try:
            count = connection.socket.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            self.close(connection)
            return
        if count < len(data):
            connection.unsent = data[count:]
            self.poller.modify(connection.socket, EPOLLIN | EPOLLOUT)
        elif connection.ends and not connection.name:
            self.close(connection)

    def flush(self, connection: Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self.poller.modify(connection.socket, EPOLLIN)
        self.send(connection, data)

    def close(self, connection: Connection) -> None:
        if self.connections.pop(connection.socket.fileno(), None) is None:
            return
        if connection.name:
            self.disconnects.append({"name": connection.name, "time": time.monotonic()})
        connection.stream_none()
        connection.received = b""
        connection.socket.close()


def main(arguments: list[str]) -> None:
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    Server(int(options["--port"])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
