"""The leases for clients: rows of ``/api/leases`` and of the events for pages.

Owns the format of the rows. The supervisor owns the leases.
"""

from __future__ import annotations

from typing import Any

from supervisor.model.leases import NamedLease


def row(lease: NamedLease) -> dict[str, Any]:
    """Return the row of a lease. ``left`` is in whole seconds, ``expires`` is in UTC."""
    return {
        "id": lease.id,
        "model": lease.model,
        "holder": lease.holder,
        "reason": lease.reason,
        "left": round(lease.left),
        "expires": lease.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
