"""Our accept loop: plain connections are served by `http1`, encrypted ones by hypercorn.

Owns listening sockets and open connections. hypercorn's own loop ends with the first connection
that fails in it and waits without bound for a client that does not read; this one contains the
failure, and closes what is still open when the grace is over.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from proxy.http1 import KEEP_ALIVE, Application, Connection
from proxy.hypercorns import Cancelling, Hypercorns
from proxy.wire import Plain

BACKLOG = 4096  # with the default of 100, a burst of clients waits seconds for its handshakes
GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError)
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
    config.keep_alive_max_requests = 1_000_000_000  # the default closes after a thousand
    config.h11_max_incomplete_size = 64 * 1024
    config.read_timeout = None  # it would cut long answers, too
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


class _Open(Protocol):
    """A connection that can be ended."""

    def finish(self) -> None: ...

    def close(self) -> None: ...


@attrs.frozen(eq=False)
class _Encrypted:
    """A connection that hypercorn serves: it learns of the end from its context."""

    _stream: trio.SocketStream

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._stream.socket.close()


@attrs.define(eq=False)
class _Connections:
    """What is open."""

    _open: set[_Open] = attrs.field(factory=set)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @contextmanager
    def listed(self, connection: _Open) -> Iterator[None]:
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
    """How connections are served: over plain TCP by `http1`, over TLS by hypercorn."""

    app: Application
    config: Config
    tls: ssl.SSLContext | None
    connections: _Connections = attrs.field(factory=_Connections)
    context: WorkerContext = attrs.field(factory=lambda: WorkerContext(None))

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; whatever a client sends ends its own connection only."""
        try:
            if self.tls:
                await self._serve_encrypted(stream, self.tls)
            else:
                await self._serve_plain(stream)
        except* GONE:  # before we could ask for its address, or at the end in a handshake
            stream.socket.close()
        except* Exception as errors:
            stream.socket.close()
            reason = repr(errors.exceptions[0])
            log.warning(f"A connection failed and was closed: {reason}", reason=reason)

    async def _serve_plain(self, stream: trio.SocketStream) -> None:
        client, server = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
        keep_alive = self.config.keep_alive_timeout
        connection = Connection(self.app, Plain.of(stream), client, server, keep_alive)
        with self.connections.listed(connection):
            await connection.run()

    async def _serve_encrypted(self, stream: trio.SocketStream, tls: ssl.SSLContext) -> None:
        wrapped = wrap_app(Cancelling(self.app), self.config.wsgi_max_body_size, "asgi")
        encrypted = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        state = ConnectionState({})
        with self.connections.listed(_Encrypted(stream)):
            await Hypercorns(wrapped, self.config, self.context, state, encrypted)


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
        tls: to serve HTTPS, with HTTP/2 where the client can.

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
            await service.context.terminated.set()
            service.connections.finish()
            with trio.move_on_after(grace):
                await service.connections.all_closed()
        finally:
            service.connections.cut()
            connections.cancel_scope.cancel()
