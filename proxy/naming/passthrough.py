"""The routes that name a model in their path: ``/upstream/MODEL/...`` and ``/comfyui/...``.

Owns their rules, which are llama-swap's, and which paths of a model server nobody reaches this way.
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
        BadRequest: no model's name begins the path, it must not go there, or is to go there with a
            slash at its end.
    """
    path = exchange.raw_path
    if path.startswith(UPSTREAM) and len(path) > len(UPSTREAM):
        return _below_upstream(exchange, path[len(UPSTREAM) :], resolver)
    if path == COMFY.encode() or path.startswith(COMFY.encode() + b"/"):
        return _below_comfy(exchange, path[len(COMFY) :], resolver)
    return None


def is_below_model(path: str) -> bool:
    """Whether a path is passed on below a model's name, as it is."""
    return path.startswith((f"{UPSTREAM.decode()}", f"{COMFY}/")) or path == COMFY


def _below_upstream(exchange: Exchange, path: bytes, resolver: Resolver) -> Route:
    names = (*resolver.directory.names(), *resolver.pins)
    found = model_in_path(path, names)
    if found is None:
        raise BadRequest(f"no model's name begins '{as_text(path)}'", status=404)
    name, rest = found
    if not rest:
        raise _moved(exchange)
    resolver.now.refuse_control(resolver.pins.get(name) or name, rest)
    return _route(rest, name, patience=not resolver.now.is_ignored(as_text(rest)))


def _below_comfy(exchange: Exchange, rest: bytes, resolver: Resolver) -> Route:
    if resolver.config.find(COMFY_MODEL) is None:
        raise BadRequest(f"there is no model '{COMFY_MODEL}'", status=404)
    if not rest:
        raise _moved(exchange)
    resolver.now.refuse_control(COMFY_MODEL, rest)
    return _route(rest, COMFY_MODEL, patience=rest == b"/")


def _route(rest: bytes, name: str, *, patience: bool) -> Route:
    target = rest if rest.startswith(b"/") else b"/" + rest
    return Route(target, NamedIn.PATH, filtered=False, model=name, patience=patience)


def _moved(exchange: Exchange) -> BadRequest:
    """Return the redirect to the same path with a slash: pages have relative links.

    It is relative itself, as a proxy in front may have taken off the beginning of the path.
    """
    query = b"?" + exchange.query if exchange.query else b""
    last = exchange.raw_path.rpartition(b"/")[2]
    place = (b"./" + last + b"/" + query).decode("latin-1")
    status = 301 if exchange.method in ("GET", "HEAD") else 308
    return BadRequest(f"see {place}", status=status, headers={"Location": place})
