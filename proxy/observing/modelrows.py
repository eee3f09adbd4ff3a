"""The models and the queue for llamadoze's own page: one row with all facts about each.

Owns the format of these rows. `running` describes the state of a model, with llama-swap's keys.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any

import trio

from proxy.naming.resolving import Resolver
from proxy.observing import running
from proxy.observing.listing import of_model
from supervisor.model.server import ModelServer
from supervisor.scheduling.queueing import Queued
from supervisor.states.snapshot import Costs

MOST_QUEUED = 200  # rows; beyond that only the number is sent

Row = dict[str, Any]


def model_row(resolver: Resolver, name: str) -> Row:
    """Return all facts about a model of the configuration."""
    supervisor = resolver.supervisor
    server = supervisor.servers[name]
    model, snapshot = server.model, server.snapshot()
    return {
        **running.standing(supervisor, snapshot),
        **of_model(model),
        "id": name,
        "name": model.name,
        "description": model.description,
        "aliases": list(model.other_names),
        "unlisted": model.unlisted,
        "since": calendar(snapshot.since),
        "readySince": calendar(snapshot.ready_since),
        "idleSince": calendar(snapshot.idle_since),
        "canSleep": server.can_sleep,
        "knowsSleep": model.can_sleep,
        "leaving": snapshot.leaving,
        "costs": _costs(snapshot.costs),
        "maxGrowth": model.verify.max_growth << 20,
        "elsewhere": model.is_elsewhere,
        "ttl": server.limits.stop_ttl,
        "share": server.at.share,
    }


def queue_rows(resolver: Resolver) -> list[Row]:
    """Return the rows of the queue in the order of arrival, at most `MOST_QUEUED`."""
    supervisor = resolver.supervisor
    return [_queued(resolver, one) for one in supervisor.queue(MOST_QUEUED)]


def _queued(resolver: Resolver, one: Queued) -> Row:
    supervisor = resolver.supervisor
    ready, known = supervisor.ready_in(one.model), supervisor.servers
    return {
        "model": one.model,
        "why": one.asker.why.value,
        "request": one.asker.request,
        "client": one.asker.client,
        "key": one.asker.key,
        "since": calendar(one.since),
        "place": one.place,
        "readyIn": round(ready.seconds, 1) if ready else None,
        "readyInMeasured": ready.measured if ready else None,
        "behind": [_rival(known[name]) for name in one.behind if name in known],
        "closesIn": _left(one.closing),
        "state": known[one.model].at.state.value,
    }


def _rival(server: ModelServer) -> Row:
    at, usage = server.at, server.usage
    return {"model": server.model.id, "state": at.state.value, "in_flight": usage.in_flight}


def _left(moment: float) -> float | None:
    if moment == inf:
        return None
    return round(max(0.0, moment - trio.current_time()), 1) if moment > -inf else 0.0


def _costs(known: Costs) -> Row:
    times = {name: getattr(known, name) for name in ("start", "stop", "sleep", "wake")}
    rounded = {name: None if one is None else round(one, 3) for name, one in times.items()}
    return {**rounded, "counts": dict(known.counts), "saved": round(known.saved, 1)}


def calendar(moment: float) -> float:
    """Convert a moment of Trio's clock to seconds since 1970."""
    return round(time.time() - trio.current_time() + moment, 3)
