"""The view with all that commands show of a daemon: models, queue, memory, latest decisions.

Owns this route. Other parts provide the contents.
"""

from __future__ import annotations

import os
import time

import msgspec
from quart import Blueprint, Response

from proxy.observing.modelrows import model_row, queue_rows
from proxy.observing.running import Row, facts_of
from proxy.views.pagefiles import version_of_ours
from proxy.views.subjects import Subjects

MOST_DECISIONS = 20


def status_views(subjects: Subjects) -> Blueprint:
    """Return the route."""
    views = Blueprint("status", __name__)
    resolver = subjects.resolver

    @views.get("/api/status")
    async def status() -> Response:
        memory = await subjects.history.memory_now()
        names = sorted(resolver.config.models)
        servers = resolver.supervisor.servers
        told: Row = {
            "now": time.time(),
            "version": version_of_ours(),
            "pid": os.getpid(),
            "began": subjects.history.began,
            **facts_of(resolver, subjects.stop),
            "inFlight": sum(servers[name].usage.in_flight for name in names),
            "waiting": sum(servers[name].usage.waiting for name in names),
            "models": [model_row(resolver, name) for name in names],
            "queue": queue_rows(resolver),
            "memory": memory,
            "decisions": subjects.history.timeline.decisions.last(MOST_DECISIONS),
        }
        return Response(msgspec.json.encode(told), content_type="application/json")

    return views
