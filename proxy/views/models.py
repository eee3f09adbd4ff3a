"""The views of the models: which there are, how they stand, and bringing them up and down.

Owns these routes. What they ask for is done by the supervisor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import Blueprint, Response, request

from proxy.naming.resolving import Resolver
from proxy.observing import listing, running
from supervisor import Supervisor


def model_views(resolver: Resolver) -> Blueprint:
    """Return the routes of a supervisor's models."""
    views = Blueprint("models", __name__)
    supervisor = resolver.supervisor

    @views.get("/v1/models")
    @views.get("/models")
    async def models() -> tuple[dict[str, Any], dict[str, str]]:
        origin = request.headers.get("Origin")
        return listing.models(resolver), {"Access-Control-Allow-Origin": origin} if origin else {}

    @views.get("/v1/models/<path:name>")
    @views.get("/models/<path:name>")
    async def model(name: str) -> dict[str, Any]:
        return listing.model(resolver, name)

    @views.get("/running")
    async def which_run() -> dict[str, Any]:
        return {"running": running.standings(supervisor, supervisor.snapshots())}

    @views.post("/api/models/load/<path:name>")
    async def load(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.load(name))

    @views.post("/api/models/wake/<path:name>")
    async def wake(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.wake(name))

    @views.post("/api/models/sleep/<path:name>")
    async def sleep(name: str) -> dict[str, Any]:
        return running.standing(supervisor, await supervisor.sleep(name))

    @views.post("/api/models/unload/<path:name>")
    async def unload(name: str) -> Response:
        await supervisor.unload(name)
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


async def _unload_all(supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        for name in supervisor.config.models:
            nursery.start_soon(supervisor.unload, name)


def plain(text: str | bytes) -> Response:
    """Return a text, as llama-swap answers it."""
    return Response(text, content_type="text/plain; charset=utf-8")


def endless(pieces: AsyncIterator[bytes], kind: str) -> Response:
    """Return an answer that goes on until the client leaves, or the daemon ends."""
    if request.method == "HEAD":  # whose answer ends with its head
        return Response(b"", 200, content_type=kind)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(pieces, 200, headers, content_type=kind)
