"""How the models stand: rows of ``/running``, and what is answered to a load, a wake or a sleep.

Owns the form of the rows: llama-swap's keys, and what it has not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from supervisor import Snapshot, State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.sleep.proof import History

Row = dict[str, Any]


def standings(supervisor: Supervisor, snapshots: Iterable[Snapshot]) -> list[Row]:
    """Return the models that are not stopped."""
    shown = [one for one in snapshots if one.state is not State.STOPPED]
    return [standing(supervisor, one) for one in shown if one.model in supervisor.servers]


def standing(supervisor: Supervisor, snapshot: Snapshot) -> Row:
    """Return a model's row."""
    server = supervisor.servers[snapshot.model]
    model, limits = server.model, server.limits
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
        "failures": server.backoff.failures,
        "retryIn": round(server.held_back, 1),
        "sleep": _sleep(server),
    }


def _sleep(server: ModelServer) -> Row | None:
    """Return what is known of a model's sleep; None for one that has no way to sleep."""
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
