"""Handlers of exchanges, served as the daemon serves them, without a daemon."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from proxy.http.addresses import Address, open_listeners
from proxy.http.exchange import Handler
from proxy.http.listening import serve_http

ASK = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


@attrs.frozen
class Served:
    """A served handler; some clients had connected before the server accepted connections."""

    port: int
    clients: list[trio.SocketStream]
    stop: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def serving(
    handle: Handler, waiting: int = 0, *, grace: float = 0.2, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    """Serve until the block ends; `waiting` clients are connected before the server starts."""
    [listener] = await open_listeners(Address("127.0.0.1", 0))
    port, stop = listener.socket.getsockname()[1], trio.Event()
    served = Served(port, [], stop)
    for _ in range(waiting):
        served.clients.append(await served.connect())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(handle, [listener], stop=stop, grace=grace, tls=tls))
        yield served
        for client in served.clients:
            await trio.aclose_forcefully(client)
        stop.set()
