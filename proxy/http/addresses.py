"""Where to listen: HOST:PORT, a unix socket, or sockets that systemd has opened already.

Owns the forms of an address and the opening of listeners. `listening` serves the connections.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

BACKLOG = 4096  # with the default of 100, a burst of clients waits seconds for its handshakes
EVERYWHERE = ""  # as with llama-swap's ``:8080``: all addresses, of IPv4 and of IPv6
UNIX = "unix:"
FIRST_INHERITED = 3  # the first descriptor of sd_listen_fds(3)
# A client that is gone is detected in a minute: 30 seconds of silence, then 3 probes.
KEEP_ALIVE_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
HIGHEST_PORT = 65535
NOT_FOR_OTHERS = 0o117  # umask of a socket: owner and group, or less if the umask says so


@attrs.frozen
class Address:
    """Where a daemon listens.

    Attributes:
        host: name or address; empty for every address of this machine.
        port: the port; 0 takes any free port.
        path: the path of a unix socket, instead of host and port.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT``, ``:PORT`` or ``unix:PATH``.

        Raises:
            ValueError: the text has none of these forms.
        """
        if text.startswith(UNIX):
            if path := text.removeprefix(UNIX).removeprefix("//"):
                return cls(path=str(Path(path).absolute()))
            raise ValueError("expected unix:PATH, such as unix:/run/llamadoze.sock")
        host, colon, port = text.rpartition(":")
        if colon and port.isdecimal() and int(port) > HIGHEST_PORT:
            raise ValueError(f"a port is at most {HIGHEST_PORT}")
        if not colon or not port.isdecimal():
            raise ValueError("expected HOST:PORT, such as 127.0.0.1:8080, or unix:PATH")
        return cls(host.strip("[]"), int(port))


async def open_listeners(address: Address) -> list[trio.SocketListener]:
    """Listen on sockets that systemd has opened for this process, or else on an address.

    Raises:
        OSError: the address is taken, or does not belong to this machine.
    """
    if inherited := _inherited():
        return inherited
    if address.path:
        return [_open_unix(Path(address.path))]
    if address.host == EVERYWHERE and address.port:
        found = await trio.open_tcp_listeners(address.port, host=None, backlog=BACKLOG)
    else:
        host = address.host or "0.0.0.0"  # noqa: S104 -- asked for by the operator
        found = await trio.open_tcp_listeners(address.port, host=host, backlog=BACKLOG)
    for listener in found:
        _keep_alive(listener)
    return found


def _keep_alive(listener: trio.SocketListener) -> None:
    """Let the system probe silent clients. Accepted connections inherit this setting.

    TCP_USER_TIMEOUT would also drop a client that only does not read for a while: see `wire`.
    """
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE_PROBES.items():
        if hasattr(socket, option):  # Linux
            listener.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _open_unix(path: Path) -> trio.SocketListener:
    """Listen on a unix socket for its owner, and for its group if the umask allows that.

    The socket that a killed daemon has left is removed. If a daemon answers on the socket, the
    socket stays.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode) and not _is_answered(path):
            path.unlink()
    plain = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(NOT_FOR_OTHERS)
        os.umask(before | NOT_FOR_OTHERS)
        try:
            plain.bind(os.fspath(path))
        finally:
            os.umask(before)
        plain.listen(BACKLOG)
    except BaseException:
        plain.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(plain))


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1)
        try:
            asking.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _inherited() -> list[trio.SocketListener]:
    """Return the sockets of sd_listen_fds(3), and keep model servers from inheriting them."""
    given, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if given != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        os.set_inheritable(descriptor, False)
        plain = socket.socket(fileno=descriptor)
        found.append(trio.SocketListener(trio.socket.from_stdlib_socket(plain)))
    return found


@contextmanager
def removed_at_end(listeners: Iterable[trio.SocketListener], address: Address) -> Iterator[None]:
    """Remove the file of a unix socket after the block, unless another socket has replaced it."""
    file = Path(address.path) if address.path else None
    ours = file is not None and any(one.socket.getsockname() == address.path for one in listeners)
    number = file.stat().st_ino if file is not None and ours else None
    try:
        yield
    finally:
        if file is not None and ours:
            with contextlib.suppress(OSError):
                if file.stat().st_ino == number:
                    file.unlink()


def shown(listener: trio.SocketListener, *, tls: bool) -> str:
    """Return the address of a listener in the form that clients use."""
    where = listener.socket.getsockname()
    if isinstance(where, str | bytes):
        return f"{UNIX}{os.fsdecode(where)}"
    host, port = where[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{name}:{port}"
