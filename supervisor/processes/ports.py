"""Ports of this machine: whether one is free, and keeping some free for our model servers.

Owns both questions to the system. The configuration decides which port a model has.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from supervisor.processes.listeners import has_remains

HOST = "127.0.0.1"
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens on a port, on an address of this machine or on all of them."""
    with _socket_for(host) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
            trial.listen(1)
        except OSError as error:
            return error.errno in NO_SUCH_ADDRESS
        return True


def suits_any_server(host: str, port: int) -> bool:
    """Whether a server can listen on a port even without SO_REUSEADDR.

    A port that is bound but not listened on is kept free for a server, by the code that gave it
    out.
    """
    with _socket_for(host) as trial:
        try:
            trial.bind((host, port))
            trial.listen(1)
        except OSError as error:
            if error.errno in NO_SUCH_ADDRESS:
                return True
            return is_free(host, port) and not has_remains(port)
        return True


def _socket_for(host: str) -> socket.socket:
    if ":" not in host:
        return socket.socket()
    trial = socket.socket(socket.AF_INET6)
    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return trial


@contextlib.contextmanager
def kept_free(count: int) -> Iterator[int]:
    """Keep consecutive ports free for our servers; yield the first.

    The system gives a bound port to no other program. But a server that sets SO_REUSEADDR, as
    servers do, may listen on a port that is only bound (socket(7), Linux).

    Args:
        count: how many ports.
    """
    while True:
        with contextlib.ExitStack() as held:
            first = _bound(0, held)
            if first and all(_bound(first + more, held) for more in range(1, count)):
                yield first
                return


def _bound(port: int, held: contextlib.ExitStack) -> int:
    """Bind a port, or any port for 0; return its number, or 0 if it is taken."""
    holder = held.enter_context(socket.socket())
    try:
        holder.bind((HOST, port))
    except (OSError, OverflowError):
        return 0
    # Set only now, or another holder's port could be bound as well. llama.cpp sets the second.
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
    return int(holder.getsockname()[1])
