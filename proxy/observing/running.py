"""The states of the models: rows of ``/running``, and the answers to a load, a wake or a sleep.

Owns the format of the rows: llama-swap's keys, and keys that llama-swap does not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import trio

from configschema import Model
from proxy.naming.resolving import Resolver
from supervisor import Snapshot, State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.places.handles import StepHandle
from supervisor.scheduling.forecast import NOW, Forecast
from supervisor.scheduling.outlook import word_for
from supervisor.sleep.proof import History
from supervisor.states.footprint import Footprint
from supervisor.states.pins import Pin
from supervisor.states.table import IN_MOTION

Row = dict[str, Any]


def facts_of(resolver: Resolver, stop: trio.Event) -> Row:
    """Return the facts about the daemon as a whole."""
    supervisor = resolver.supervisor
    return {
        "paused": supervisor.is_paused,
        "ending": stop.is_set(),
        "profile": resolver.profile,
        "profiles": [one["id"] for one in resolver.profiles()["profiles"]],
        "rule": word_for(supervisor.config),
        "maxWait": supervisor.config.max_wait,
        "performance": not supervisor.config.performance.disabled,
        "models": len(supervisor.config.models),
    }


def standings(supervisor: Supervisor, snapshots: Iterable[Snapshot]) -> list[Row]:
    """Return the rows of the models that are not stopped."""
    shown = [one for one in snapshots if one.state is not State.STOPPED]
    return [standing(supervisor, one) for one in shown if one.model in supervisor.servers]


def standing(supervisor: Supervisor, snapshot: Snapshot) -> Row:
    """Return a model's row."""
    server = supervisor.servers[snapshot.model]
    model, limits = server.model, server.limits
    ready = NOW if server.is_serving else coming(supervisor, server)
    return {
        "model": model.id,
        "state": snapshot.state.value,
        "cmd": model.shown.get("cmd", ""),
        "proxy": model.shown.get("proxy", ""),
        "ttl": limits.stop_ttl or limits.sleep_ttl,
        "sleepTtl": limits.sleep_ttl,
        "name": model.name,
        "description": model.description,
        "pid": snapshot.pid,
        "in_flight": snapshot.in_flight,
        "waiting": server.usage.waiting,
        "failure": snapshot.failure,
        "leftover": snapshot.left or None,
        "queue": snapshot.queue.why or None,
        "cluster": _place(model, snapshot.handle),
        "failures": server.backoff.failures,
        "retryIn": round(server.held_back, 1),
        "readyIn": round(ready.seconds, 1) if ready else None,
        "readyInMeasured": ready.measured if ready else None,
        "sleep": _sleep(server),
        "gpus": list(snapshot.gpus),
        "room": _room(snapshot.need.known),
        "pin": _pin(snapshot.pin),
    }


def _place(model: Model, handle: object) -> Row | None:
    """Return where in a cluster a model runs or will run; None for a model of this machine."""
    if model.holding is None:
        return None
    step = handle if isinstance(handle, StepHandle) else None
    return {
        "name": model.holding.cluster,
        "allocation": model.allocation,
        "job": step and step.job,
        "step": step and step.step,
        "node": step and step.node,
    }


def coming(supervisor: Supervisor, server: ModelServer) -> Forecast | None:
    """Return when a model will be ready, if it starts or wakes or requests wait for it.

    None if that is not known, and for all other models.
    """
    comes = server.at.state in IN_MOTION or server.usage.waiting
    return supervisor.ready_in(server.model.id) if comes and not server.is_serving else None


def _room(known: Footprint) -> Row:
    """Return the known sizes of a model's memory, in bytes; None is not known."""
    return {
        "awake": {"gpus": known.gpus, "host": known.host},
        "asleep": {"gpus": known.gpus_asleep, "host": known.host_asleep},
        "growth": known.growth,
        "lives": known.lives,
    }


def _pin(pin: Pin | None) -> Row | None:
    """Return why a model need not make room for another; None if it must."""
    if pin is None:
        return None
    left = None if pin.until == inf else round(max(0.0, pin.until - trio.current_time()), 1)
    return {"holder": pin.holder, "reason": pin.reason, "seconds": left}


def _sleep(server: ModelServer) -> Row | None:
    """Return the facts about a model's sleep; None for a model that cannot sleep."""
    if not server.model.can_sleep:
        return None
    known = server.sleeping
    return {
        "trusted": known.trust.holds,
        "failures": known.trust.failures,
        "lastFailure": known.last_failure,
        "memory": {
            kind.lower(): {
                "freed": amount.freed,
                "left": amount.left,
                "trend": round(known.histories.get(kind, History()).trend),
            }
            for kind, amount in known.amounts.items()
        },
    }
