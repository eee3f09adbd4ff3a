"""A request's way into the application: forwarded at once, or served by a view.

Owns the one place where the ASGI calls of a connection enter our code, and the mending of what
quart-trio does when a response has been sent.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import trio
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIHTTPConnection

from proxy.forward import Forwarder
from proxy.routing import is_forwarded


class HasForwarder(Protocol):
    """What is needed of the application."""

    forwarder: Forwarder


class Connection(TrioASGIHTTPConnection):
    """Serve one request.

    quart-trio cancels a request when the connection reports its end; hypercorn reports it while
    the last message is still being sent, and the connection would stay open for ever. So the end
    is noted first, and what comes after it cancels nothing.
    """

    _finished = False

    async def __call__(self, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI callables
        """Forward the request, or let the application's views serve it."""
        if is_forwarded(self.scope["method"], self.scope["path"]):
            application = cast("HasForwarder", self.app)
            await application.forwarder.forward(self.scope, receive, send)
            return

        async def watched(message: Any) -> None:  # noqa: ANN401 -- an ASGI message
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._finished = True
            await send(message)

        await super().__call__(receive, watched)

    async def handle_messages(  # type: ignore[override] # quart-trio overrides it so, too
        self,
        nursery: trio.Nursery,
        request: Request,
        receive: Any,  # noqa: ANN401 -- ASGI callable
    ) -> None:
        """Read until the client is gone; cancel the view if it is still at work."""
        await super(TrioASGIHTTPConnection, self).handle_messages(request, receive)
        if not self._finished:
            nursery.cancel_scope.cancel()
