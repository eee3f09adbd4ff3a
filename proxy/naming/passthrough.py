"""The routes that name a model in their path: ``/upstream/MODEL/...`` and ``/comfyui/...``.

Owns their rules, which are llama-swap's, and which paths of a model server nobody reaches this way.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any
from urllib.parse import unquote

from proxy.http.errors import BadRequest
from proxy.naming.resolving import Resolver
from proxy.naming.routes import COMFY, COMFY_MODEL, NamedIn, Route, model_in_path

UPSTREAM = b"/upstream/"
UNSEEN = re.compile(r"[\x00-\x20\x7f]")  # which a router may not look at
CONTROL = frozenset(
    {
        # vLLM
        *("/sleep", "/wake_up", "/collective_rpc", "/pause", "/resume", "/abort_requests"),
        *("/init_weight_transfer_engine", "/update_weights", "/start_weight_update"),
        *("/finish_weight_update", "/scale_elastic_ep", "/reset_prefix_cache", "/reset_mm_cache"),
        *("/start_profile", "/stop_profile"),
        # SGLang
        *("/release_memory_occupation", "/resume_memory_occupation", "/pause_generation"),
        *("/continue_generation", "/update_weights_from_disk", "/update_weights_from_tensor"),
        *("/update_weights_from_distributed", "/init_weights_update_group", "/flush_cache"),
        *("/set_internal_state",),
        # llama.cpp
        *("/models/load", "/models/unload"),
    }
)
"""What puts a model server to sleep or changes it: only the daemon itself may ask for these."""


def route_below(scope: Any, resolver: Resolver) -> Route | None:  # noqa: ANN401 -- ASGI
    """Return how a request below a model's path is forwarded; None for any other path.

    Raises:
        BadRequest: no model's name begins the path, it must not go there, or is to go there with a
            slash at its end.
    """
    path: bytes = scope["raw_path"]
    if path.startswith(UPSTREAM) and len(path) > len(UPSTREAM):
        return _below_upstream(scope, path[len(UPSTREAM) :], resolver)
    if path == COMFY.encode() or path.startswith(COMFY.encode() + b"/"):
        return _below_comfy(scope, path[len(COMFY) :], resolver)
    return None


def _below_upstream(scope: Any, path: bytes, resolver: Resolver) -> Route:  # noqa: ANN401 -- ASGI
    names = (*resolver.directory.names(), *resolver.pins)
    found = model_in_path(path, names)
    if found is None:
        raise BadRequest(f"no model's name begins '{unquote(path.decode('latin-1'))}'", status=404)
    name, rest = found
    if not rest:
        raise _moved(scope)
    settings = resolver.config.upstream
    _refuse_control(rest, allowed=settings.allow_control)
    plain = unquote(rest.decode("latin-1"))
    ignored = any(re.search(pattern, plain) for pattern in settings.ignore_paths)
    return _route(rest, name, patience=not ignored)


def _below_comfy(scope: Any, rest: bytes, resolver: Resolver) -> Route:  # noqa: ANN401 -- ASGI
    if resolver.config.find(COMFY_MODEL) is None:
        raise BadRequest(f"there is no model '{COMFY_MODEL}'", status=404)
    if not rest:
        raise _moved(scope)
    return _route(rest, COMFY_MODEL, patience=rest == b"/")


def _route(rest: bytes, name: str, *, patience: bool) -> Route:
    target = rest if rest.startswith(b"/") else b"/" + rest
    return Route(target, NamedIn.PATH, filtered=False, model=name, patience=patience)


def _moved(scope: Any) -> BadRequest:  # noqa: ANN401 -- ASGI
    """Return the redirect to the same path with a slash: pages have relative links."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    place = (scope["raw_path"] + b"/" + query).decode("latin-1")
    status = 301 if scope["method"] in ("GET", "HEAD") else 308
    return BadRequest(f"see {place}", status=status, headers={"Location": place})


def _refuse_control(path: bytes, *, allowed: bool) -> None:
    """Refuse a path that controls a model server, however it is written."""
    written = UNSEEN.sub("", unquote(unquote(path.decode("latin-1"))))
    plain = posixpath.normpath("/" + written.lstrip("/")).lower()
    if not allowed and any(plain.endswith(control) for control in CONTROL):
        text = f"{plain} controls the model server; it is reached only with upstream.allowControl"
        raise BadRequest(text, status=403)
