"""A reverse proxy that serves a daemon below a path and strips the path, as nginx can."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def below_a_path(path: str, port: int) -> Iterator[int]:
    """Serve the daemon on this port below the path; return the port of the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path, port), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, path: str, port: int) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, path, port), daemon=True).start()


def _serve(client: socket.socket, path: str, port: int) -> None:
    """Serve one request and close the connection, so that every request has its path stripped."""
    with suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        line, _, rest = head.partition(b"\r\n")
        rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
        server.sendall(line.replace(path.encode(), b"", 1) + b"\r\n" + rest)
        while piece := server.recv(65536):
            client.sendall(piece)
