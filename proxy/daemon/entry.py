"""A request's way into the application: refused, forwarded at once, or served by a view.

Owns the one place where the ASGI calls of a connection enter our code, and what holds for all
routes: keys, CORS, and the request's id.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from quart_trio.asgi import TrioASGIHTTPConnection

from proxy.forwarding.forward import Forwarder
from proxy.http.errors import BadRequest, problem_of
from proxy.http.headers import REQUEST_ID, Header, value_of
from proxy.naming.access import preflight
from proxy.naming.passthrough import route_below
from proxy.naming.resolving import Resolver
from proxy.naming.routes import Route, route_of
from proxy.observing.requestlog import report_refusal, request_id_of

DOUBLED = re.compile("//+")

Asgi = Any
"""An ASGI callable, scope or message."""


class Gateway(Protocol):
    """What is needed of the application."""

    forwarder: Forwarder
    resolver: Resolver


class Entry(TrioASGIHTTPConnection):
    """Serve one request. It is cancelled when its client leaves, by the server beneath."""

    async def __call__(self, receive: Asgi, send: Asgi) -> None:
        """Forward the request, or let the application's views serve it."""
        scope, gateway = self.scope, cast("Gateway", self.app)
        headers = list(scope["headers"])
        request_id = request_id_of(headers)
        try:
            if scope["method"] == "OPTIONS":
                await _say(send, 204, preflight(headers), b"", request_id)
                return
            route = self._admit(gateway)
        except BadRequest as error:
            problem = problem_of(error)
            if problem.status >= 400:  # below that, it is only to ask elsewhere
                report_refusal(scope["method"], scope["path"], problem, request_id)
            fields, body = problem.said_to(value_of(headers, b"accept"))
            await _say(send, problem.status, fields, body, request_id)
            return
        if route is not None:
            await gateway.forwarder.forward(scope, receive, send, route, request_id)
        else:
            await self._serve_view(receive, send, request_id)

    def _admit(self, gateway: Gateway) -> Route | None:
        """Return where a request goes; None is a view.

        Raises:
            BadRequest: it may not go there.
        """
        method, headers = self.scope["method"], [*self.scope["headers"]]
        path = DOUBLED.sub("/", self.scope["path"])  # a base URL with a slash at its end
        gateway.resolver.keys.check(method, path, headers)
        return route_of(method, path) or route_below(self.scope, gateway.resolver)

    async def _serve_view(self, receive: Asgi, send: Asgi, request_id: str) -> None:
        async def named(message: Asgi) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
            await send(message)

        await super().__call__(receive, named)


async def _say(
    send: Asgi, status: int, headers: list[Header], body: bytes, request_id: str
) -> None:
    framing = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    fields = [*headers, *framing, (REQUEST_ID, request_id.encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
