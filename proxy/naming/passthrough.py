"""The routes that name a model in their path: ``/upstream/MODEL/...`` and ``/comfyui/...``.

Owns their rules, which are llama-swap's. Paths that control a model server are closed to clients.
"""

from __future__ import annotations

from proxy.http.errors import BadRequest
from proxy.http.exchange import Exchange
from proxy.http.heads import as_text
from proxy.naming.resolving import Resolver
from proxy.naming.routes import COMFY, COMFY_MODEL, NamedIn, Route, model_in_path

UPSTREAM = b"/upstream/"


def route_below(exchange: Exchange, resolver: Resolver) -> Route | None:
    """Return how a request below a model's path is forwarded; None for any other path.

    Raises:
        BadRequest: the path begins with no model's name, is closed, or needs a slash at its end.
    """
    path = exchange.raw_path
    if path.startswith(UPSTREAM) and len(path) > len(UPSTREAM):
        return _below_upstream(exchange, path[len(UPSTREAM) :], resolver)
    if path == COMFY.encode() or path.startswith(COMFY.encode() + b"/"):
        return _below_comfy(exchange, path[len(COMFY) :], resolver)
    return None


def is_below_model(path: str) -> bool:
    """Whether a path names a model and is passed on unchanged below that name."""
    return path.startswith((f"{UPSTREAM.decode()}", f"{COMFY}/")) or path == COMFY


def _below_upstream(exchange: Exchange, path: bytes, resolver: Resolver) -> Route:
    names = (*resolver.directory.names(), *resolver.pins)
    found = model_in_path(path, names)
    if found is None:
        raise BadRequest(f"'{as_text(path)}' does not begin with a model's name", status=404)
    name, rest = found
    if not rest:
        raise _moved(exchange)
    resolver.now.refuse_control(resolver.pins.get(name) or name, rest)
    return _route(rest, name, patience=not resolver.now.is_ignored(as_text(rest)))


def _below_comfy(exchange: Exchange, rest: bytes, resolver: Resolver) -> Route:
    if resolver.config.find(COMFY_MODEL) is None:
        raise BadRequest(f"{COMFY} needs a model with the name '{COMFY_MODEL}'", status=404)
    if not rest:
        raise _moved(exchange)
    resolver.now.refuse_control(COMFY_MODEL, rest)
    return _route(rest, COMFY_MODEL, patience=rest == b"/")


def _route(rest: bytes, name: str, *, patience: bool) -> Route:
    target = rest if rest.startswith(b"/") else b"/" + rest
    return Route(target, NamedIn.PATH, filtered=False, model=name, patience=patience)


def _moved(exchange: Exchange) -> BadRequest:
    """Return the redirect to the same path with a slash, which relative links in pages need.

    The redirect is relative, too: a proxy in front may have removed the beginning of the path.
    """
    query = b"?" + exchange.query if exchange.query else b""
    last = exchange.raw_path.rpartition(b"/")[2]
    place = (b"./" + last + b"/" + query).decode("latin-1")
    status = 301 if exchange.method in ("GET", "HEAD") else 308
    return BadRequest(f"see {place}", status=status, headers={"Location": place})
