"""hypercorn's connections, for HTTPS: what it leaves undone, and what our own promises instead.

Owns the mending of two habits. hypercorn holds a descriptor until the keep-alive time has passed,
and it tells of a client's leaving in a message, where `http1` cancels.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio
from hypercorn.trio.tcp_server import TCPServer

from proxy.errors import Problem
from proxy.exchange import CANCELLED, CANCELS
from proxy.http1 import Application

Asgi = Any
"""An ASGI callable, scope or message."""


class Hypercorns(TCPServer):
    """hypercorn's connection, ended when its client has closed it."""

    _read_to_end = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._read_to_end = True
        await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        if not self._read_to_end:
            await super()._idle_timeout()


@attrs.frozen
class Cancelling:
    """Cancel the application's call when its client leaves, as `http1` does."""

    app: Application

    async def __call__(self, scope: Asgi, receive: Asgi, send: Asgi) -> None:
        """Serve one request; websockets are refused, since only `http1` can pass them on."""
        if scope["type"] == "http":
            await _Call(self.app, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})


@attrs.define(eq=False)
class _Call:
    app: Application
    scope: Asgi
    receive: Asgi
    send: Asgi
    _begun: bool = False
    _finished: bool = False
    _cancelled: bool = False
    _whole: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Pass the request's parts on one by one, and watch for the client to leave."""
        send, receive = trio.open_memory_channel[Asgi](0)
        scope = {**self.scope, "extensions": {CANCELS: {"cancel": self._cancel}}}
        with self._whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, send)
                await self.app(scope, receive.receive, self._pass_on)
                nursery.cancel_scope.cancel()
        if self._cancelled and not self._begun:
            await self._say(Problem(499, CANCELLED))

    async def _watch(self, parts: trio.MemorySendChannel[Asgi]) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                break
            await parts.send(message)
        # hypercorn tells of the end of a connection's use while the last message is still being
        # sent; to cancel that would leave the connection open for ever.
        if not self._finished:
            self._whole.cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        self._whole.cancel()

    async def _pass_on(self, message: Asgi) -> None:
        self._begun = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._finished = True
        await self.send(message)

    async def _say(self, problem: Problem) -> None:
        body = problem.body()
        fields = [*problem.fields(), (b"content-length", b"%d" % len(body))]
        start = {"type": "http.response.start", "status": problem.status, "headers": fields}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})
