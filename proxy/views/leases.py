"""The views of the leases: which client keeps which model, and for how long.

Owns these routes, and the limits of a lease. The supervisor owns what a lease does.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from quart import Blueprint, request

from proxy.http.errors import BadRequest
from proxy.observing.leaserows import row
from supervisor import Supervisor

LONGEST = 7 * 86400  # seconds
LONGEST_HOLDER = 200  # characters
LONGEST_REASON = 1000
EXPECTED = '{"model": NAME, "seconds": 1 to 604800, "holder": TEXT, "reason": TEXT}'


@attrs.frozen
class Wanted:
    """The lease that a client asks for."""

    model: str
    seconds: float
    holder: str
    reason: str


def lease_views(supervisor: Supervisor) -> Blueprint:
    """Return the routes of a supervisor's leases."""
    views = Blueprint("leases", __name__)
    leases = supervisor.leases

    @views.get("/api/leases")
    async def all_of_them() -> dict[str, Any]:
        return {"leases": [row(lease) for lease in leases]}

    @views.post("/api/leases")
    async def take() -> tuple[dict[str, Any], int]:
        """Answer when the model is ready. A client that disconnects before gets no lease."""
        wanted = _wanted(await request.get_data())
        lease, is_new = await supervisor.keep_for(
            wanted.model, wanted.seconds, wanted.holder, wanted.reason
        )
        return row(lease), 201 if is_new else 200

    @views.get("/api/leases/<number>")
    async def one(number: str) -> dict[str, Any]:
        lease = leases.find(number)
        if lease is None:
            raise _unknown(number)
        return row(lease)

    @views.delete("/api/leases/<number>")
    async def give_back(number: str) -> dict[str, Any]:
        if leases.give_back(number) is None:
            raise _unknown(number)
        return {"msg": "ok"}

    return views


def _unknown(number: str) -> BadRequest:
    return BadRequest(f"there is no lease {number[:LONGEST_HOLDER]}", status=404)


def _wanted(body: str | bytes) -> Wanted:
    """Parse the lease that a client asks for.

    Raises:
        BadRequest: the body cannot be parsed, or a value is not allowed.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadRequest(f"expected {EXPECTED}")
    return Wanted(
        model=_text(data, "model", LONGEST_REASON),
        seconds=_seconds(data.get("seconds")),
        holder=_text(data, "holder", LONGEST_HOLDER),
        reason=_text(data, "reason", LONGEST_REASON, is_needed=False),
    )


def _text(data: dict[str, Any], key: str, most: int, *, is_needed: bool = True) -> str:
    """Return a text. It must be one line, because the log contains it."""
    value = data.get(key)
    if value is None and not is_needed:
        return ""
    if (
        not isinstance(value, str)
        or len(value) > most
        or not value.isprintable()
        or (is_needed and not value.strip())
    ):
        text = f"{key}: expected one line of text, at most {most} characters"
        raise BadRequest(text, param=key)
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LONGEST:
        raise BadRequest(f"seconds: expected a number from 1 to {LONGEST}", param="seconds")
    return float(value)
