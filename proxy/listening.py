"""Our accept loop around hypercorn's HTTP protocol.

Owns listening sockets and open connections. hypercorn's own loop ends with the first connection
that fails in it and waits without bound for a client that does not read; this one contains the
failure, and closes what is still open when the grace is over.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

BACKLOG = 4096  # with the default of 100, a burst of clients waits seconds for its handshakes
DEAD_PEER = 60_000  # milliseconds without an acknowledgement until a connection is given up
KEEP_ALIVE = 75.0  # seconds an idle connection stays open

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


class _Connection(TCPServer):
    """hypercorn's connection, ended when its client has closed it.

    hypercorn waits for the keep-alive time to pass all the same, and holds the descriptor.
    """

    _read_to_end = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._read_to_end = True
        await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        if not self._read_to_end:
            await super()._idle_timeout()


@attrs.define(eq=False)
class _Connections:
    """The streams that are open."""

    streams: set[trio.SocketStream] = attrs.field(factory=set)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def remove(self, stream: trio.SocketStream) -> None:
        self.streams.discard(stream)
        self._changed.set()
        self._changed = trio.Event()

    async def all_closed(self) -> None:
        while self.streams:
            await self._changed.wait()

    def cut(self) -> None:
        """Close all sockets; a send that waits for its client ends with an error."""
        for stream in tuple(self.streams):
            stream.socket.close()


async def serve_http(
    app: Callable[..., Any],
    listeners: list[trio.SocketListener],
    *,
    stop: trio.Event,
    grace: float,
    config: Config | None = None,
) -> None:
    """Serve an ASGI application until it is told to stop.

    Args:
        app: called for each request; it gets no lifespan events.
        listeners: closed when serving ends.
        stop: set to take no more connections and requests.
        grace: seconds that requests then have to end.
        config: hypercorn's; by default `hypercorn_config`.

    A connection that fails is logged and does no harm to others. Cancelling closes all at once.
    """
    settings = config or hypercorn_config()
    context = WorkerContext(None)
    wrapped = wrap_app(app, settings.wsgi_max_body_size, "asgi")
    open_now = _Connections()

    async def handle(stream: trio.SocketStream) -> None:
        open_now.streams.add(stream)
        try:
            # hypercorn's annotation knows TLS streams only; it asks for the kind at run time.
            await _Connection(wrapped, settings, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except* Exception as errors:  # whatever a client sent must end its own connection only
            reason = repr(errors.exceptions[0])
            log.warning(f"A connection failed and was closed: {reason}", reason=reason)
        finally:
            open_now.remove(stream)

    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
                )
                await stop.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            with trio.move_on_after(grace):
                await open_now.all_closed()
        finally:
            open_now.cut()
            connections.cancel_scope.cancel()
