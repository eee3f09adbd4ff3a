"""Our accept loop: each connection is served by `http1`, over TLS if that is configured.

Owns the list of open connections: their highest number, and which of them is closed first.
`addresses` opens the listening sockets. The settings are hypercorn's. Its own loop ends with the
first connection that fails in it, and waits without limit for a client that does not read. This
loop contains the failure, and closes the connections that are open when the grace period ends.
"""

from __future__ import annotations

import errno
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from proxy.http.exchange import Handler
from proxy.http.http1 import KEEP_ALIVE, Connection
from proxy.http.wire import Encrypted, Plain, Wire

if TYPE_CHECKING:  # otherwise hypercorn would be loaded at every start, for two numbers
    from hypercorn.config import Config

AT_ONCE = 64  # waiting connections that are accepted in one turn
KEPT_FREE = 0.5  # the share of all descriptors for models, their connections, and files
NEW = 1.0  # seconds in which a new client may begin its request
NO_LIMIT = 1 << 20
LEAST = 16  # connections that are always allowed, however few descriptors there are
BETWEEN_LINES = 60.0  # seconds between two warnings that there is no room
GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError)
FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
USELESS = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}  # the listener failed, not just one client
BETWEEN_TRIES = 0.05  # seconds in which other connections may close
SLOWEST_HANDSHAKE = 10.0  # seconds until a connection must be encrypted

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


def most_connections() -> int:
    """Return how many connections of clients the system's limit allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return NO_LIMIT
    return max(LEAST, int(soft * (1 - KEPT_FREE)))


@attrs.define(eq=False)
class Connections:
    """The open connections of clients.

    Attributes:
        most: how many may be open.
    """

    most: int = attrs.field(factory=most_connections)
    _open: dict[Connection, None] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)
    _finishing: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _told_at: float = attrs.field(default=-BETWEEN_LINES, init=False)

    @property
    def room(self) -> int:
        """How many more connections may be opened."""
        return self.most - self._count

    def opened(self) -> None:
        """Count one connection more."""
        self._count += 1

    def closed(self) -> None:
        """Count one connection less."""
        self._count -= 1
        self._changed.set()
        self._changed = trio.Event()

    @contextmanager
    def listed(self, connection: Connection) -> Iterator[None]:
        """List a connection on which requests may come, for as long as the block lasts."""
        self._open[connection] = None
        if self._finishing:  # the TLS handshake ended only now
            connection.finish()
        try:
            yield
        finally:
            del self._open[connection]

    async def make_room(self) -> None:
        """Return when one more connection may be taken, after an idle one or another was closed."""
        while self.room <= 0:
            self.let_one_go(f"{self.most} connections are open")
            with trio.move_on_after(1):
                await self._changed.wait()

    def let_one_go(self, why: str) -> None:
        """Close the connection that has been idle longest, if any is idle."""
        now = trio.current_time()
        idle = max(self._open, key=lambda one: one.idle_for(now), default=None)
        if idle is not None and idle.idle_for(now) > NEW:
            idle.close()
        if now - self._told_at >= BETWEEN_LINES:
            self._told_at = now
            log.warning(
                f"No room for more connections ({why}): llamadoze closes idle connections first. "
                "If you have many clients, raise the limit of open files (ulimit -n, LimitNOFILE)",
                reason=why,
            )

    async def all_closed(self) -> None:
        """Wait until the last connection is closed."""
        while self._open:
            await self._changed.wait()

    def finish(self) -> None:
        """End each connection after its current request, also those that are listed later."""
        self._finishing = True
        for connection in tuple(self._open):
            connection.finish()

    def cut(self) -> None:
        """Close all connections. A send that waits for its client ends with an error."""
        for connection in tuple(self._open):
            connection.close()


@attrs.define(eq=False)
class _Service:
    """How connections are served."""

    handle: Handler
    tls: ssl.SSLContext | None
    patience: Callable[[], float]
    keep_alive: float
    slowest_handshake: float
    connections: Connections = attrs.field(factory=Connections)

    async def accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Accept connections while there is room. If there is none, close idle connections."""
        while True:
            await self.connections.make_room()
            await trio.lowlevel.wait_readable(listener)
            try:
                self._take_those_waiting(listener, nursery)
            except OSError as error:
                if error.errno in USELESS:
                    raise
                if error.errno in FULL:
                    self.connections.let_one_go(f"{error.strerror}")
                await trio.sleep(BETWEEN_TRIES)

    def _take_those_waiting(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Accept all at once: with one per turn, a burst of clients would wait many turns."""
        for _ in range(min(AT_ONCE, self.connections.room)):
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                return
            self.connections.opened()
            nursery.start_soon(self.serve, accepted)

    async def serve(self, accepted: socket.socket) -> None:
        """Serve one connection. Whatever a client sends can end only its own connection."""
        try:
            client, server = _both_ends(accepted)
            patience = self.patience()
            wire: Wire
            if self.tls:
                wire = await self._encrypt(accepted, self.tls, patience)
            else:
                wire = Plain.connected(accepted, patience)
            scheme = "https" if self.tls else "http"
            connection = Connection(self.handle, wire, client, server, self.keep_alive, scheme)
            with self.connections.listed(connection):
                await connection.run()
        except* GONE:  # before its address was known, or in the handshake
            accepted.close()
        except* Exception as errors:
            accepted.close()
            reason = repr(errors.exceptions[0])
            log.warning(f"A connection failed and was closed: {reason}", reason=reason)
        finally:
            self.connections.closed()

    async def _encrypt(self, accepted: socket.socket, tls: ssl.SSLContext, patience: float) -> Wire:
        accepted.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        encrypted = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(self.slowest_handshake):
                await encrypted.do_handshake()
        except BaseException:  # after any error, the connection cannot be used
            stream.socket.close()
            raise
        return Encrypted(encrypted, patience)


def _both_ends(accepted: socket.socket) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """Return the addresses of a connection. On a unix socket, there are none."""
    if accepted.family == socket.AF_UNIX:
        return None, None
    return accepted.getpeername()[:2], accepted.getsockname()[:2]


async def serve_http(
    handle: Handler,
    listeners: list[trio.SocketListener],
    *,
    stop: trio.Event,
    grace: float,
    config: Config | None = None,
    tls: ssl.SSLContext | None = None,
    patience: Callable[[], float] = lambda: inf,
) -> None:
    """Serve until told to stop.

    Args:
        handle: called for each request.
        listeners: closed when serving ends.
        stop: when set, no more connections and requests are taken.
        grace: seconds in which requests may end after `stop`.
        config: hypercorn's; only its timeouts are used. Our defaults suit long answers.
        tls: given to serve HTTPS.
        patience: returns for how many seconds a client may read nothing while bytes wait for it.

    A connection that fails is logged and does not affect others. Cancelling closes all at once.
    """
    keep_alive = config.keep_alive_timeout if config else KEEP_ALIVE
    handshake = config.ssl_handshake_timeout if config else SLOWEST_HANDSHAKE
    service = _Service(handle, tls, patience, keep_alive, handshake)
    sockets = [socket.socket(fileno=listener.socket.detach()) for listener in listeners]
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for one in sockets:
                    one.setblocking(False)
                    accepting.start_soon(service.accept, one, connections)
                await stop.wait()
                accepting.cancel_scope.cancel()
            for one in sockets:
                one.close()
            service.connections.finish()
            with trio.move_on_after(grace):
                await service.connections.all_closed()
        finally:
            for one in sockets:
                one.close()
            service.connections.cut()
            connections.cancel_scope.cancel()
