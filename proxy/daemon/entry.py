"""A request's way into the application: refused, forwarded at once, or served by a view.

Owns the one place where the ASGI calls of a connection enter our code, and what holds for all
routes: the spelling of paths, keys, whose browser asks, and the request's id.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

import attrs
from quart_trio.asgi import TrioASGIHTTPConnection

from proxy.forwarding.forward import Forwarder, Visit
from proxy.http.errors import NOT_FOR_CACHES, BadRequest, problem_of
from proxy.http.headers import Header, ids, value_of
from proxy.naming.origins import Visitor
from proxy.naming.passthrough import is_below_model, route_below
from proxy.naming.resolving import InEffect, Resolver
from proxy.naming.routes import POSTED, Route, is_shared, route_of
from proxy.observing.counters import Metrics
from proxy.observing.requestlog import report_refusal, request_id_of

DOUBLED = re.compile("//+")
NO_CONTENT = 204
LOOKS = ("GET", "HEAD")
CHANGING = "/unload"  # by GET, as llama-swap has it
NO_HOST: Header = (b"host", b"localhost")

Asgi = Any
"""An ASGI callable, scope or message."""


class Gateway(Protocol):
    """What is needed of the application."""

    forwarder: Forwarder
    resolver: Resolver
    metrics: Metrics


@attrs.frozen
class _Way:
    """Where a request goes: to a model by a route, or by its path to a view."""

    path: str
    route: Route | None
    shared: bool

    @classmethod
    def of(cls, method: str, path: str) -> _Way:
        """Read it from a request; the spelling of the path does not matter, but below a model."""
        if method == "POST" and (way := POSTS.get(path)):  # most are
            return way
        if is_below_model(path):
            return cls(path, None, shared=False)
        plain = plain_path(path)
        route = route_of(method, plain)
        return cls(plain, route, shared=route is not None or is_shared(method, plain))

    def changes(self, method: str) -> bool:
        """Whether a request changes something, or may: a model may have to come up for it."""
        if self.route is not None or method not in LOOKS or self.path == CHANGING:
            return True
        return is_below_model(self.path)


POSTS = {path: _Way(path, route, shared=True) for path, route in POSTED.items()}


class Entry(TrioASGIHTTPConnection):
    """Serve one request. It is cancelled when its client leaves, by the server beneath."""

    async def __call__(self, receive: Asgi, send: Asgi) -> None:
        """Forward the request, or let the application's views serve it."""
        scope, gateway = self.scope, cast("Gateway", self.app)
        headers: list[Header] = list(scope["headers"])
        request_id = request_id_of(headers)
        visitor, now = Visitor.of(headers), gateway.resolver.now
        if scope["method"] == "OPTIONS":
            method = value_of(headers, b"access-control-request-method").decode("latin-1")
            shared = _Way.of(method, scope["path"]).shared
            allowed = now.guard.preflight(visitor, headers, shared=shared)
            await _say(send, 204, [*allowed, *ids(request_id.encode())], b"")
            return
        way = _Way.of(scope["method"], scope["path"])
        cors = now.guard.headers_for(visitor, shared=way.shared)
        try:
            key = self._admit(gateway, now, way, visitor)
            route = way.route or route_below(scope, gateway.resolver)
        except BadRequest as error:
            problem = problem_of(error)
            if problem.status >= 400:  # below that, it is only to ask elsewhere
                report_refusal(scope["method"], scope["path"], problem, request_id)
            fields, body = problem.said_to(value_of(headers, b"accept"))
            await _say(send, problem.status, [*fields, *cors, *ids(request_id.encode())], body)
            return
        if route is not None:
            visit = Visit(request_id, key, cors)
            await gateway.forwarder.forward(scope, receive, send, route, visit)
        else:
            await self._serve_view(receive, send, way.path, [*cors, *ids(request_id.encode())])

    def _admit(self, gateway: Gateway, now: InEffect, way: _Way, visitor: Visitor) -> str:
        """Let a request pass; return the name of the key it shows.

        Raises:
            BadRequest: it may not go where it wants to.
        """
        method, server = self.scope["method"], self.scope.get("server")
        changes = way.changes(method)
        is_page = visitor.is_link and method in LOOKS and is_below_model(way.path)
        now.guard.admit(
            visitor,
            server[0] if server else "",
            changes=changes and not is_page,
            shared=way.shared,
        )
        name = now.keys.check(method, way.path, list(self.scope["headers"]), changes=changes).name
        if name:
            gateway.metrics.by_key[name] += 1
        return name

    async def _serve_view(self, receive: Asgi, send: Asgi, path: str, marks: list[Header]) -> None:
        # Quart makes addresses of the Host header, which we never need, and fails with some.
        self.scope["headers"] = [
            NO_HOST,
            *(pair for pair in self.scope["headers"] if pair[0] != b"host"),
        ]
        self.scope["path"], self.scope["raw_path"] = path, path.encode("utf-8", "surrogateescape")

        async def marked(message: Asgi) -> None:
            if message["type"] == "http.response.start":
                given = [*message["headers"]]
                if message["status"] == NO_CONTENT:  # which has no length either (RFC 9110, 8.6)
                    given = [pair for pair in given if pair[0] != b"content-length"]
                kept = [] if value_of(given, b"cache-control") else [NOT_FOR_CACHES]
                message["headers"] = [*given, *kept, *marks]
            await send(message)

        await super().__call__(receive, marked)


def plain_path(path: str) -> str:
    """Return a path without what clients add that join addresses: slashes, a second ``/v1``."""
    if "//" in path:
        path = DOUBLED.sub("/", path)
    if len(path) > 1 and path.endswith("/"):
        path = path[:-1]
    return path.removeprefix("/v1") if path.startswith("/v1/v1/") else path


async def _say(send: Asgi, status: int, headers: list[Header], body: bytes) -> None:
    framing = [] if status == NO_CONTENT else [(b"content-length", b"%d" % len(body))]
    fields = [*headers, *framing]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
