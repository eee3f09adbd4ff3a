"""The views of the past: finished requests, captures, samples, and the timeline.

Owns these routes: llama-swap's with its JSON, and llamadoze's own ones. `proxy.history` owns what
is kept.
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from proxy.forwarding.inflight import DECIMAL
from proxy.history.keeping import History
from proxy.history.paging import asked_in, models_in, moment_in
from proxy.history.replay import replayed
from proxy.http.errors import BadRequest
from proxy.lifecycle.reloading import Reloader

USUAL = 3600.0  # seconds of the timeline
JSON = "application/json"


def past_views(history: History, reloader: Reloader) -> Blueprint:
    """Return the routes of the history."""
    views = Blueprint("past", __name__)

    @views.get("/api/metrics/activity")
    async def activity() -> Response:
        return _json(await history.page(asked_in(_query())))

    @views.get("/api/metrics/stats")
    async def stats() -> Response:
        return _json(await history.stats(models_in(_query())))

    @views.get("/api/captures/<number>")
    async def capture(number: str) -> Response:
        if not DECIMAL.fullmatch(number):
            raise BadRequest(f"{number[:40]} is not the number of a request")
        found = history.captures.find(int(number))
        if found is None:
            text = f"request {number} is not captured, or no longer captured (captureBuffer)"
            raise BadRequest(text, status=404)
        return _json(found)

    @views.get("/api/performance")
    async def performance() -> Response:
        if not history.every:
            return _json({"enabled": False}, 503)
        after = moment_in(_query(), "after", 0.0)
        return _json({"enabled": True, **history.samples_after(after)})

    @views.get("/api/hardware")
    async def hardware() -> Response:
        return _json(await history.hardware())

    @views.get("/api/timeline")
    async def timeline() -> Response:
        query, now = _query(), time.time()
        until = moment_in(query, "until", now)
        since = moment_in(query, "since", min(until, now) - USUAL)
        if since > until:
            raise BadRequest("since: expected a time before until", param="since")
        return _json(history.happened(since, until))

    @views.post("/api/simulate")
    async def simulate() -> Response:
        """Play past requests with other settings."""
        asked = _play_in(await request.get_data())
        if reloader.files is None:
            raise BadRequest("the configuration did not come from a file", code="no_file")
        requests = await history.requests_between(asked["since"], asked["until"])
        files = reloader.files.find()
        return _json(await replayed(history.supervisor, files, requests, asked))

    return views


def _play_in(body: str | bytes) -> dict[str, float]:
    """Parse the settings of a play.

    Raises:
        BadRequest: the body cannot be parsed, or a value is not allowed.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    names = {"since": True, "until": True, "maxWait": False, "minActive": False}
    if not isinstance(data, dict) or not all(
        name in data or not is_needed for name, is_needed in names.items()
    ):
        raise BadRequest('expected {"since": SECONDS, "until": SECONDS, "maxWait": SECONDS, ...}')
    found = {name: data[name] for name in names if data.get(name) is not None}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
            raise BadRequest(f"{name}: expected seconds", param=name)
    return found


def _query() -> dict[str, list[str]]:
    return {name: request.args.getlist(name) for name in request.args}


def _json(data: Any, status: int = 200) -> Response:  # noqa: ANN401 -- JSON
    """Return JSON. A day is megabytes, and Python's own encoder takes ten times as long."""
    return Response(msgspec.json.encode(data), status, content_type=JSON)
