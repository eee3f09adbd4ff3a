"""The views of the models: their list, their states, and load, wake, sleep and unload.

Owns these routes. The supervisor does the work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import trio
from quart import Blueprint, Response, request

from proxy.http.errors import BadRequest
from proxy.naming.resolving import Resolver
from proxy.observing import listing, running
from supervisor import NotRunning, Supervisor
from supervisor.states.causes import Asker, Why
from supervisor.states.table import BEFORE_READY


def model_views(resolver: Resolver) -> Blueprint:
    """Return the routes of a supervisor's models."""
    views = Blueprint("models", __name__)
    supervisor = resolver.supervisor

    @views.get("/v1/models")
    @views.get("/models")
    async def models() -> dict[str, Any]:
        return listing.models(resolver)

    @views.get("/v1/models/<path:name>")
    @views.get("/models/<path:name>")
    async def model(name: str) -> dict[str, Any]:
        return listing.model(resolver, name)

    @views.get("/running")
    async def which_run() -> dict[str, Any]:
        return {"running": running.standings(supervisor, supervisor.snapshots())}

    @views.post("/api/models/load/<path:name>")
    async def load(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.load(name, operator()))

    @views.post("/api/models/wake/<path:name>")
    async def wake(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.wake(name, operator()))

    @views.post("/api/models/sleep/<path:name>")
    async def sleep(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.sleep(name, operator()))

    @views.post("/models/load")
    async def load_named() -> dict[str, Any]:
        await supervisor.load(await _named_in_body(), operator())
        return {"success": True}

    @views.post("/models/unload")
    async def eject_named() -> dict[str, Any]:
        """Free the room of a model: put it to sleep if it can sleep, else stop it."""
        server = supervisor.server(await _named_in_body())
        if server.can_sleep and server.snapshot().state not in BEFORE_READY:
            with suppress(NotRunning):
                await supervisor.sleep(server.model.id, operator())
        else:
            await supervisor.unload(server.model.id, operator())
        return {"success": True}

    @views.post("/api/models/unload/<path:name>")
    async def unload(name: str) -> Response:
        await supervisor.unload(name, operator())
        return plain("OK")

    @views.get("/unload")
    async def unload_all() -> Response:
        await _unload_all(supervisor)
        return plain("OK")

    @views.post("/api/models/unload")
    async def unload_each() -> dict[str, str]:
        await _unload_all(supervisor)
        return {"msg": "ok"}

    return views


def operator() -> Asker:
    """Return the asker of an action: an operator's client and key."""
    client = request.scope["client"]
    key = request.scope.get("state", {}).get("key", "")
    return Asker(why=Why.OPERATOR, client=client[0] if client else "", key=key)


async def _named_in_body() -> str:
    """Return the model that a body names, in the format of llama.cpp's router: ``{"model": ID}``.

    Raises:
        BadRequest: the body names no model.
    """
    try:
        data = json.loads(await request.get_data())
    except (ValueError, RecursionError):
        data = None
    name = data.get("model") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name:
        raise BadRequest('expected {"model": NAME}', param="model")
    return name


async def _unload_all(supervisor: Supervisor) -> None:
    asker = operator()
    async with trio.open_nursery() as nursery:
        for name in supervisor.config.models:
            nursery.start_soon(supervisor.unload, name, asker)


def plain(text: str | bytes) -> Response:
    """Return a text, as llama-swap answers it."""
    return Response(text, content_type="text/plain; charset=utf-8")


def endless(pieces: AsyncIterator[bytes], kind: str) -> Response:
    """Return an answer that continues until the client disconnects or the daemon ends."""
    if request.method == "HEAD":  # its answer has no body
        return Response(b"", 200, content_type=kind)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(pieces, 200, headers, content_type=kind)
