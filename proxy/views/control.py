"""The views of the daemon itself: readiness, metrics, events, profiles, reload and pause.

Owns these routes. Other parts do the work.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import attrs
import trio
from quart import Blueprint, Response, request

from proxy.http.errors import BadRequest
from proxy.naming.resolving import Resolver
from proxy.observing import running
from proxy.observing.events import kinds_in
from proxy.views.models import endless, plain
from proxy.views.pagefiles import to_page, version_of_ours, wants_page
from proxy.views.subjects import Subjects

LINKS = """
/ui/            the page: which model has the GPU, what waits, why models changed
/v1/models      the models, as OpenAI's API lists them
/running        the models that are not stopped
/logs           the log
/metrics        metrics for Prometheus
"""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def daemon_views(subjects: Subjects) -> Blueprint:
    """Return the routes of the daemon."""
    views = Blueprint("daemon", __name__)
    _add_standing(views, subjects.resolver, subjects.stop)
    _add_metrics(views, subjects)
    _add_profiles(views, subjects.resolver)
    _add_control(views, subjects)

    @views.get("/api/events")
    async def stream() -> Response:
        kinds = kinds_in(request.args.get("kinds"))
        return endless(subjects.events.stream(kinds), "text/event-stream")

    @views.post("/api/inflight/<number>/cancel")
    async def cancel(number: str) -> dict[str, str]:
        if not subjects.in_flight.cancel(number):
            raise BadRequest(f"no request {number} is in flight", status=404)
        return {"msg": "ok"}

    return views


def _add_standing(views: Blueprint, resolver: Resolver, stop: trio.Event) -> None:
    @views.get("/ready")
    async def ready() -> tuple[dict[str, Any], int]:
        """Tell whether requests are served. It is no fault if all models are stopped."""
        paused, ending = resolver.supervisor.is_paused, stop.is_set()
        good = not (paused or ending)
        facts = {"ready": good, "paused": paused, "ending": ending}
        return {**facts, "models": len(resolver.config.models)}, 200 if good else 503

    @views.get("/")
    async def root() -> Response:
        return to_page() if wants_page() else plain(f"llamadoze {version_of_ours()}\n{LINKS}")

    @views.get("/upstream")
    async def upstream() -> Response:
        """Tell where the model servers' own pages are."""
        if wants_page():
            return to_page("#models")
        names = sorted(resolver.config.models)
        return plain("".join(f"/upstream/{quote(name)}/\n" for name in names))

    @views.get("/api/access")
    async def access() -> dict[str, Any]:
        """Tell what the API key of the request may do."""
        state = request.scope.get("state", {})
        return {"key": state.get("key", ""), "changes": not state.get("reads_only", False)}

    @views.get("/favicon.ico")
    async def icon() -> tuple[str, int]:
        return "", 204

    @views.get("/api/version")
    async def about() -> dict[str, str]:
        return {"version": version_of_ours(), "commit": "unknown", "build_date": "unknown"}


def _add_metrics(views: Blueprint, subjects: Subjects) -> None:
    @views.get("/metrics")
    async def read_metrics() -> Response:
        from proxy.observing.prometheus import exposed

        text = exposed(subjects.metrics, subjects.reloader, subjects.in_flight)
        return Response(text, content_type=PROMETHEUS)


def _add_profiles(views: Blueprint, resolver: Resolver) -> None:
    @views.get("/api/profiles")
    async def profiles() -> dict[str, Any]:
        return resolver.profiles()

    @views.put("/api/profiles/active")
    async def activate() -> dict[str, Any]:
        try:
            data = json.loads(await request.get_data())
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or "name" not in data:
            raise BadRequest('expected {"name": PROFILE}, or {"name": null} for none')
        if not isinstance(data["name"], str | None):
            raise BadRequest("name: expected a string or null")
        resolver.profile = data["name"] or None
        return {"active": resolver.profile}


def _add_control(views: Blueprint, subjects: Subjects) -> None:
    resolver, reloader, feed = subjects.resolver, subjects.reloader, subjects.events.feed
    supervisor = resolver.supervisor

    @views.post("/api/reload")
    async def reload() -> dict[str, Any]:
        return attrs.asdict(await reloader.reload())

    @views.get("/api/pause")
    async def paused() -> dict[str, Any]:
        return {"paused": supervisor.is_paused}

    @views.post("/api/pause")
    async def pause() -> dict[str, Any]:
        requests = request.args.get("requests", "hold")
        if requests not in ("hold", "refuse"):
            raise BadRequest(f"requests={requests}: expected hold or refuse", code="bad_value")
        feed.stir()
        stand = await supervisor.pause(refuse=requests == "refuse")
        feed.stir()
        return {"paused": supervisor.is_paused, "models": running.standings(supervisor, stand)}

    @views.post("/api/resume")
    async def resume() -> dict[str, Any]:
        feed.stir()
        stand = await supervisor.resume()
        feed.stir()
        return {"paused": supervisor.is_paused, "models": running.standings(supervisor, stand)}
