"""The leases as clients see them: a row of ``/api/leases`` and of the events for pages.

Owns the form. Who has which is the supervisor's.
"""

from __future__ import annotations

from typing import Any

from supervisor.model.leases import NamedLease


def row(lease: NamedLease) -> dict[str, Any]:
    """Return what is told of a lease; times are whole seconds, the calendar's are UTC."""
    return {
        "id": lease.id,
        "model": lease.model,
        "holder": lease.holder,
        "reason": lease.reason,
        "left": round(lease.left),
        "expires": lease.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
