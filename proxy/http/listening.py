"""Our accept loop: each connection is served by `http1`, over TLS where that is wanted.

Owns listening sockets and open connections. hypercorn's own loop, whose settings these are, ends
with the first connection that fails in it and waits without bound for a client that does not read;
this one contains the failure, and closes what is still open when the grace is over.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import attrs
import structlog
import trio
from hypercorn.config import Config

from proxy.http.exchange import Application
from proxy.http.http1 import KEEP_ALIVE, Connection
from proxy.http.wire import Encrypted, Plain, Wire

BACKLOG = 4096  # with the default of 100, a burst of clients waits seconds for its handshakes
GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError)
SLOWEST_HANDSHAKE = 30.0  # seconds until a connection is encrypted
DEAD_PEER = 60_000  # milliseconds without an acknowledgement until a connection is given up

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on an address.

    Raises:
        OSError: it is taken, or not ours.
    """
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    for listener in listeners:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER)
    return listeners


def hypercorn_config() -> Config:
    """Return hypercorn's settings for a proxy of long answers."""
    config = Config()
    config.keep_alive_timeout = KEEP_ALIVE
    config.ssl_handshake_timeout = SLOWEST_HANDSHAKE
    return config


@attrs.define(eq=False)
class _Connections:
    """What is open."""

    _open: set[Connection] = attrs.field(factory=set)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @contextmanager
    def listed(self, connection: Connection) -> Iterator[None]:
        self._open.add(connection)
        try:
            yield
        finally:
            self._open.discard(connection)
            self._changed.set()
            self._changed = trio.Event()

    async def all_closed(self) -> None:
        while self._open:
            await self._changed.wait()

    def finish(self) -> None:
        """Let each end after its present request."""
        for connection in tuple(self._open):
            connection.finish()

    def cut(self) -> None:
        """Close all; a send that waits for its client ends with an error."""
        for connection in tuple(self._open):
            connection.close()


@attrs.define(eq=False)
class _Service:
    """How connections are served."""

    app: Application
    config: Config
    tls: ssl.SSLContext | None
    connections: _Connections = attrs.field(factory=_Connections)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; whatever a client sends ends its own connection only."""
        try:
            client, server = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
            wire = await self._encrypt(stream, self.tls) if self.tls else Plain.of(stream)
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

    async def _encrypt(self, stream: trio.SocketStream, tls: ssl.SSLContext) -> Wire:
        encrypted = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await encrypted.do_handshake()
        except BaseException:  # whatever it is, the connection is of no use
            stream.socket.close()
            raise
        return Encrypted(encrypted)


async def serve_http(
    app: Application,
    listeners: list[trio.SocketListener],
    *,
    stop: trio.Event,
    grace: float,
    config: Config | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve an ASGI application until it is told to stop.

    Args:
        app: called for each request; it gets no lifespan events.
        listeners: closed when serving ends.
        stop: set to take no more connections and requests.
        grace: seconds that requests then have to end.
        config: hypercorn's; by default `hypercorn_config`.
        tls: to serve HTTPS.

    A connection that fails is logged and does no harm to others. Cancelling closes all at once.
    """
    service = _Service(app, config or hypercorn_config(), tls)
    async with trio.open_nursery() as connections:
        serve = partial(trio.serve_listeners, service.serve, listeners, handler_nursery=connections)
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(serve)
                await stop.wait()
                accepting.cancel_scope.cancel()
            service.connections.finish()
            with trio.move_on_after(grace):
                await service.connections.all_closed()
        finally:
            service.connections.cut()
            connections.cancel_scope.cancel()
