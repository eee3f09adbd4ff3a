"""Our accept loop: each connection is served by `http1`, over TLS where that is wanted.

Owns listening sockets. hypercorn's own loop, whose settings these are, ends with the first
connection that fails in it and waits without bound for a client that does not read; this one
contains the failure, and closes what is still open when the grace is over.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from math import inf

import attrs
import structlog
import trio
from hypercorn.config import Config

from proxy.http.connections import Connections
from proxy.http.exchange import Application
from proxy.http.http1 import KEEP_ALIVE, Connection
from proxy.http.wire import Encrypted, Plain, Wire

BACKLOG = 4096  # with the default of 100, a burst of clients waits seconds for its handshakes
GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError)
FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
USELESS = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}  # the listener; else only one client
BETWEEN_TRIES = 0.05  # seconds until something may have been closed
SLOWEST_HANDSHAKE = 10.0  # seconds until a connection is encrypted
EVERYWHERE = ""  # as llama-swap's ``:8080``: all addresses, of IPv4 and of IPv6
# A peer that is gone is found in a minute: after so many seconds of silence, so many questions.
KEEP_ALIVE_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on an address.

    Raises:
        OSError: it is taken, or not ours.
    """
    if host == EVERYWHERE and port:
        listeners = await trio.open_tcp_listeners(port, host=None, backlog=BACKLOG)
    else:
        host = host or "0.0.0.0"  # noqa: S104 -- asked for by the operator
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    for listener in listeners:
        # Accepted connections inherit these. TCP_USER_TIMEOUT would count a client that only does
        # not read for a while as gone: see `wire`.
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE_PROBES.items():
            if hasattr(socket, option):  # Linux
                listener.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return listeners


def hypercorn_config() -> Config:
    """Return hypercorn's settings for a proxy of long answers."""
    config = Config()
    config.keep_alive_timeout = KEEP_ALIVE
    config.ssl_handshake_timeout = SLOWEST_HANDSHAKE
    return config


@attrs.define(eq=False)
class _Service:
    """How connections are served."""

    app: Application
    config: Config
    tls: ssl.SSLContext | None
    patience: Callable[[], float]
    connections: Connections = attrs.field(factory=Connections)

    async def accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Take connections for as long as there is room; where there is none, idle ones go."""
        while True:
            await self.connections.make_room()
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno in USELESS:
                    raise
                if error.errno in FULL:
                    # The system says so even if nobody is there to be accepted.
                    await trio.lowlevel.wait_readable(listener.socket)
                    self.connections.let_one_go(f"{error.strerror}")
                await trio.sleep(BETWEEN_TRIES)
            else:
                nursery.start_soon(self.serve, stream)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; whatever a client sends ends its own connection only."""
        try:
            client, server = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
            patience = self.patience()
            wire: Wire
            if self.tls:
                with self.connections.arriving():
                    wire = await self._encrypt(stream, self.tls, patience)
            else:
                wire = Plain.of(stream, patience)
            keep_alive, scheme = self.config.keep_alive_timeout, "https" if self.tls else "http"
            connection = Connection(self.app, wire, client, server, keep_alive, scheme)
            with self.connections.listed(connection):
                await connection.run()
        except* GONE:  # before we could ask for its address, or in the handshake
            stream.socket.close()
        except* Exception as errors:
            stream.socket.close()
            reason = repr(errors.exceptions[0])
            log.warning(f"A connection failed and was closed: {reason}", reason=reason)

    async def _encrypt(
        self, stream: trio.SocketStream, tls: ssl.SSLContext, patience: float
    ) -> Wire:
        encrypted = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await encrypted.do_handshake()
        except BaseException:  # whatever it is, the connection is of no use
            stream.socket.close()
            raise
        return Encrypted(encrypted, patience)


async def serve_http(
    app: Application,
    listeners: list[trio.SocketListener],
    *,
    stop: trio.Event,
    grace: float,
    config: Config | None = None,
    tls: ssl.SSLContext | None = None,
    patience: Callable[[], float] = lambda: inf,
) -> None:
    """Serve an ASGI application until it is told to stop.

    Args:
        app: called for each request; it gets no lifespan events.
        listeners: closed when serving ends.
        stop: set to take no more connections and requests.
        grace: seconds that requests then have to end.
        config: hypercorn's; by default `hypercorn_config`.
        tls: to serve HTTPS.
        patience: returns the seconds that a client may take nothing of what is sent to it.

    A connection that fails is logged and does no harm to others. Cancelling closes all at once.
    """
    service = _Service(app, config or hypercorn_config(), tls, patience)
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(partial(service.accept, listener, connections))
                await stop.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                await listener.aclose()
            service.connections.finish()
            with trio.move_on_after(grace):
                await service.connections.all_closed()
        finally:
            for listener in listeners:
                listener.socket.close()
            service.connections.cut()
            connections.cancel_scope.cancel()
