"""A request's way into the daemon: it is refused, forwarded at once, or served by a view.

Owns what applies to all routes: the spelling of paths, API keys, checks of browsers, and the
request's id.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import attrs

from configschema import ApiKey
from proxy.forwarding.forward import Forwarder, Visit
from proxy.http.errors import NOT_FOR_CACHES, BadRequest, problem_of, ready_to_say
from proxy.http.exchange import Exchange
from proxy.http.headers import Header, ids
from proxy.naming.origins import Visitor
from proxy.naming.passthrough import is_below_model, route_below
from proxy.naming.quotas import Quotas
from proxy.naming.resolving import InEffect, Resolver
from proxy.naming.routes import POSTED, PROBES, Route, is_shared, route_of
from proxy.observing.counters import Metrics
from proxy.observing.requestlog import report_refusal, request_id_of

DOUBLED = re.compile("//+")
NO_CONTENT = 204
LOOKS = ("GET", "HEAD")
CHANGING = "/unload"  # with GET, as in llama-swap
HEALTHY = ((b"content-type", b"text/plain; charset=utf-8"), NOT_FOR_CACHES)

Serve = Callable[[Exchange, str, Sequence[Header], ApiKey], Awaitable[None]]
"""Serves an exchange by a view, given its plain path, the headers to add, and the API key that it
shows."""


@attrs.frozen
class _Way:
    """Where a request goes: to a model by a route, or by its path to a view."""

    path: str
    route: Route | None
    shared: bool

    @classmethod
    def of(cls, method: str, path: str) -> _Way:
        """Return a request's way. The spelling of the path matters below a model only."""
        if method == "POST" and (way := POSTS.get(path)):  # most requests
            return way
        if is_below_model(path):
            return cls(path, None, shared=False)
        plain = plain_path(path)
        route = route_of(method, plain)
        return cls(plain, route, shared=route is not None or is_shared(method, plain))

    def changes(self, method: str) -> bool:
        """Whether a request changes something, or may, because a model may have to start for it."""
        if self.route is not None or method not in LOOKS or self.path == CHANGING:
            return True
        return is_below_model(self.path)


POSTS = {path: _Way(path, route, shared=True) for path, route in POSTED.items()}


@attrs.frozen
class Entry:
    """The one place where exchanges enter. If a client disconnects, its exchange is cancelled.

    Attributes:
        forwarder: serves requests to models.
        views: serves all others.
        resolver: knows the configuration in effect.
        metrics: counts the use of each key.
        quotas: the limits of each key.
    """

    forwarder: Forwarder
    views: Serve
    resolver: Resolver
    metrics: Metrics
    quotas: Quotas = attrs.field(factory=Quotas)

    async def handle(self, exchange: Exchange) -> None:
        """Serve one exchange."""
        request_id = request_id_of(exchange.fields)
        visitor, now = Visitor.of(exchange.fields), self.resolver.now
        if exchange.method == "OPTIONS":
            await self._allow(exchange, now, visitor, request_id)
            return
        way = _Way.of(exchange.method, exchange.path)
        cors = now.guard.headers_for(visitor, shared=way.shared) if visitor.origin else ()
        try:
            key = self._admit(exchange, now, way, visitor)
            route = way.route or route_below(exchange, self.resolver)
        except BadRequest as error:
            await _refuse(exchange, error, request_id, cors)
            return
        if route is None and way.path in PROBES and exchange.method in LOOKS:
            await exchange.say(200, [*HEALTHY, *cors, *ids(request_id.encode())], b"OK")
        elif route is not None:
            visit = Visit(request_id, key.name, cors, now)
            if key.is_limited:
                await self._forward_limited(exchange, route, visit, key)
            else:
                await self.forwarder.forward(exchange, route, visit)
        else:
            await self.views(exchange, way.path, [*cors, *ids(request_id.encode())], key)

    async def _forward_limited(
        self, exchange: Exchange, route: Route, visit: Visit, key: ApiKey
    ) -> None:
        try:
            self.quotas.begin(key)
        except BadRequest as error:
            self.metrics.refused_by_key[key.name] += 1
            await _refuse(exchange, error, visit.request_id, visit.cors, key.name)
            return
        try:
            await self.forwarder.forward(exchange, route, visit)
        finally:
            self.quotas.end(key)

    async def _allow(
        self, exchange: Exchange, now: InEffect, visitor: Visitor, request_id: str
    ) -> None:
        """Answer a browser's preflight request."""
        asked = exchange.fields.get(b"access-control-request-method", b"").decode("latin-1")
        shared = _Way.of(asked, exchange.path).shared
        allowed = now.guard.preflight(visitor, exchange.fields, shared=shared)
        exchange.begin(NO_CONTENT, [*allowed, *ids(request_id.encode())])
        await exchange.write(b"", last=True)

    def _admit(self, exchange: Exchange, now: InEffect, way: _Way, visitor: Visitor) -> ApiKey:
        """Check a request, and return the API key that it shows.

        Raises:
            BadRequest: the request is not allowed.
        """
        method, server = exchange.method, exchange.connection.server
        changes = way.changes(method)
        if (
            way.path == CHANGING and visitor.is_part
        ):  # a page may show a model's words, with such an image in them
            raise BadRequest("an image or another part of a page cannot unload models", status=403)
        is_page = visitor.is_link and method in LOOKS and is_below_model(way.path)
        now.guard.admit(
            visitor,
            server[0] if server else "",
            changes=changes and not is_page,
            shared=way.shared,
        )
        key = now.keys.check(method, way.path, exchange.fields, changes=changes)
        if key.name:
            self.metrics.by_key[key.name] += 1
        return key


def plain_path(path: str) -> str:
    """Return a path without what clients add by joining addresses: slashes, a second ``/v1``."""
    if "//" in path:
        path = DOUBLED.sub("/", path)
    if len(path) > 1 and path.endswith("/"):
        path = path[:-1]
    return path.removeprefix("/v1") if path.startswith("/v1/v1/") else path


async def _refuse(
    exchange: Exchange,
    error: BadRequest,
    request_id: str,
    cors: Sequence[Header],
    key: str = "",
) -> None:
    problem = problem_of(error)
    if problem.status >= 400:  # below that, it is a redirection
        client = exchange.connection.client
        said = client[0] if client else ""
        report_refusal(exchange.method, exchange.path, said, problem, request_id, key)
    accept = exchange.fields.get(b"accept", b"")
    await ready_to_say(accept)
    fields, body = problem.said_to(accept)
    await exchange.say(problem.status, [*fields, *cors, *ids(request_id.encode())], body)
