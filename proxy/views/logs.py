"""The views of the log: the latest lines, and the lines to come.

Owns these routes, which are llama-swap's. The log book and the models keep the lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from quart import Blueprint, Response, request

from configschema.text.likeness import nearest
from proxy.http.errors import BadRequest
from proxy.naming.resolving import Resolver
from proxy.observing.logbook import PROXY, UPSTREAM, LogBook
from proxy.views.models import endless, plain
from proxy.views.pagefiles import to_page, wants_page
from supervisor.processes.output import LogRing

TEXT = "text/plain; charset=utf-8"


def log_views(resolver: Resolver, book: LogBook) -> Blueprint:
    """Return the routes of the log."""
    views = Blueprint("logs", __name__)

    @views.get("/logs")
    async def logs() -> Response:
        if wants_page():
            return to_page("#logs")
        _, ring = _source(request.args.get("source"), resolver, book)
        text = ring.text()
        if "hide" in request.args:
            text = resolver.config.hide(text.decode("utf-8", "replace")).encode()
        return plain(text)

    @views.get("/logs/stream")
    @views.get("/logs/stream/<path:source>")
    async def stream(source: str | None = None) -> Response:
        followed, ring = _source(source, resolver, book)
        pieces = _follow(book, followed, None if "no-history" in request.args else ring)
        response = endless(pieces, TEXT)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return views


def _source(name: str | None, resolver: Resolver, book: LogBook) -> tuple[str | None, LogRing]:
    """Return the source of a log, and the history of that log.

    Raises:
        BadRequest: there is no such log.
    """
    if name is None:
        return None, book.combined
    if name in (PROXY, UPSTREAM):
        return name, book.proxy if name == PROXY else book.upstream
    if (model := resolver.config.find(name)) is None:
        like = nearest(name, (PROXY, UPSTREAM, *resolver.config.by_name))
        meant = f"did you mean '{like}'?" if like else "expected proxy, upstream or a model"
        raise BadRequest(f"there is no log '{name}'; {meant}")
    return f"{UPSTREAM}/{model.id}", resolver.supervisor.servers[model.id].output


async def _follow(
    book: LogBook, source: str | None, history: LogRing | None
) -> AsyncIterator[bytes]:
    with book.followed(source) as reader:
        if history is not None and (text := history.text()):
            yield text
        try:
            while True:
                yield await reader.read()
        except trio.EndOfChannel:
            return
