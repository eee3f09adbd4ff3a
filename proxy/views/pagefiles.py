"""The page: its files, and the states in plain HTML for a browser without JavaScript.

Owns ``/ui/``, and which requests are redirected there. The page gets its data by the daemon's
routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path

import attrs
from quart import Blueprint, Response, request

from proxy.naming.resolving import Resolver
from proxy.observing import running
from proxy.observing.modelrows import queue_rows
from supervisor.states.durations import seconds

FILES = Path(__file__).parents[1] / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
STATE = "<!-- state -->"


@attrs.frozen
class File:
    """A file of the page, with its ETag: a hash of its content."""

    body: bytes
    kind: str
    tag: str


@cache
def files() -> Mapping[str, File]:
    """Return all files of the page by name. The first call reads all of them."""
    found = {}
    for path in FILES.rglob("*"):
        if path.is_file() and path.suffix in KINDS:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:32]
            found[path.relative_to(FILES).as_posix()] = File(body, KINDS[path.suffix], tag)
    return found


def page_views(resolver: Resolver) -> Blueprint:
    """Return the routes of the page."""
    views = Blueprint("page", __name__)

    @views.get("/ui")
    async def page() -> Response:
        if not request.scope["raw_path"].endswith(b"/"):
            return _to("ui/")
        body = files()["index.html"].body.decode().replace(STATE, _plain(resolver))
        return Response(body, 200, HEADERS, content_type=KINDS[".html"])

    @views.get("/ui/<path:name>")
    async def file(name: str) -> Response:
        found = files().get(name)
        if found is None:
            return Response("there is no such file\n", 404, content_type=KINDS[""])
        response = Response(found.body, 200, HEADERS, content_type=found.kind)
        response.set_etag(found.tag)
        if found.tag in request.if_none_match:
            response.status_code = 304
            response.set_data(b"")
        return response

    return views


@cache
def version_of_ours() -> str:
    """Return the version of this llamadoze."""
    return version("llamadoze")


def wants_page() -> bool:
    """Whether the client is a browser that wants a page."""
    accept = request.headers.get("Accept", "")
    return "text/html" in accept


def to_page(where: str = "") -> Response:
    """Redirect a browser to the page. The address is relative: a reverse proxy's path stays."""
    return _to(f"ui/{where}")


def _to(where: str) -> Response:
    return Response("", 302, {"Location": where, "Vary": "Accept", "Cache-Control": "no-store"})


def _plain(resolver: Resolver) -> str:
    """Return the states of the models and the queue, in plain HTML."""
    supervisor = resolver.supervisor
    rows = "".join(
        f"<tr><th scope=row>{escape(row['model'])}</th><td>{escape(row['state'])}</td>"
        f"<td>{row['in_flight']}</td><td>{row['waiting']}</td></tr>"
        for row in (running.standing(supervisor, one) for one in supervisor.snapshots())
    )
    waiting = "".join(
        f"<li>{escape(row['model'])}: place {row['place']}{_ready_in(row['readyIn'])}</li>"
        for row in queue_rows(resolver)
    )
    paused = "<p>llamadoze is paused.</p>" if supervisor.is_paused else ""
    return (
        f"<h1>llamadoze {escape(version_of_ours())}</h1>{paused}"
        "<table><caption>Models</caption><thead><tr>"
        "<th scope=col>Model</th><th scope=col>State</th><th scope=col>In flight</th>"
        f"<th scope=col>Waiting</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<h2>Queue</h2><ol>{waiting}</ol><p>Reload this page to see the current state.</p>"
    )


def _ready_in(value: float | None) -> str:
    return "" if value is None else f", ready in about {seconds(value)}"
