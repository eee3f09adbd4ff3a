"""Limits of requests to models: for each API key in a minute and at once, and for all together.

Owns the counts, which outlive a reload. The supervisor shares models between competing keys.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from math import ceil

import attrs
import trio

from configschema import ApiKey, Config
from proxy.http.errors import BadRequest
from supervisor.scheduling.shares import is_below_part, weights_of
from supervisor.states.causes import Asking

MINUTE = 60.0  # seconds
SOON = "1"  # second, as for a model's concurrencyLimit


@attrs.define(eq=False)
class Quotas:
    """The requests of each key that has a limit."""

    _came: defaultdict[str, deque[float]] = attrs.field(
        factory=lambda: defaultdict(deque), init=False
    )
    _in_flight: defaultdict[str, int] = attrs.field(factory=lambda: defaultdict(int), init=False)

    def begin(self, key: ApiKey) -> None:
        """Count a request. Call `end` after it.

        Raises:
            BadRequest: the key has reached a limit; the request is not counted.
        """
        self._refuse_beyond_limits(key)
        self._came[key.name].append(trio.current_time())
        self._in_flight[key.name] += 1

    def end(self, key: ApiKey) -> None:
        """Stop counting a request as in flight."""
        self._in_flight[key.name] -= 1

    def _refuse_beyond_limits(self, key: ApiKey) -> None:
        most, came = key.in_flight, self._came[key.name]
        if most and self._in_flight[key.name] >= most:
            what = f"has {most} requests in flight, the limit set by inFlight"
            raise _refusal(key, what, "concurrency_limit", SOON)
        most, now = key.requests_per_minute, trio.current_time()
        while came and (came[0] <= now - MINUTE or len(came) > most):
            came.popleft()
        if most and len(came) >= most:
            wait = str(ceil(came[0] + MINUTE - now))
            what = f"sent {most} requests within a minute, the limit set by requestsPerMinute"
            raise _refusal(key, what, "rate_limit_exceeded", wait)


def _refusal(key: ApiKey, what: str, code: str, wait: str) -> BadRequest:
    text = f"the API key '{key.name}' {what}: retry in {wait}s"
    return BadRequest(text, status=429, code=code, headers={"Retry-After": wait})


def refuse_beyond_all(key: str, there: Iterable[Asking], config: Config) -> None:
    """Refuse a request if ``globalConcurrencyLimit`` is reached.

    If several keys compete, a key that has less than its share is let in beyond the limit.

    Args:
        key: the name of the request's key.
        there: the requests in flight, as many as the limit or more.
        config: has the limit, which is not 0.

    Raises:
        BadRequest: the key has its share.
    """
    limit = config.global_concurrency_limit
    if not is_below_part(key, [one.key for one in there], limit, weights_of(config)):
        text = (
            f"{limit} requests are in flight, the limit set by globalConcurrencyLimit: "
            f"retry in {SOON}s"
        )
        raise BadRequest(text, status=429, code="concurrency_limit", headers={"Retry-After": SOON})
