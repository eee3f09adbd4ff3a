"""Selects and sorts finished requests, and computes their totals.

Owns llama-swap's parameters of ``/api/metrics/activity`` and its format of ``/api/metrics/stats``.
Pure functions: other modules keep the requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil, inf, nan
from typing import Any

import attrs

from proxy.history.finished import Finished
from proxy.http.errors import BadRequest

LATEST = 1e11  # seconds since 1970; later moments do not fit into a calendar
MOST_MODELS = 200  # models in one query
MOST_ROWS = 999
USUAL_ROWS = 25
BINS = 20
LOWEST: float = -1  # stands for unknown numbers, and sorts before known ones
SORTS: Mapping[str, Callable[[Finished], Any]] = {
    "id": lambda one: one.id,
    "time": lambda one: one.at,
    "model": lambda one: one.model,
    "req_path": lambda one: one.path,
    "resp_status_code": lambda one: one.status,
    "resp_content_type": lambda one: one.content_type,
    "cached": lambda one: _or_lowest(one.tokens.cached),
    "prompt": lambda one: _or_lowest(one.tokens.prompt),
    "generated": lambda one: _or_lowest(one.tokens.generated),
    "drafted": lambda one: _or_lowest(one.tokens.drafted),
    "prompt_speed": lambda one: _or_lowest(one.tokens.prompt_speed),
    "gen_speed": lambda one: _or_lowest(one.speed),
    "duration": lambda one: one.seconds,
}


@attrs.frozen(kw_only=True)
class Asked:
    """A query for finished requests.

    Attributes:
        page: from 1.
        limit: rows of a page.
        sort: a key of `SORTS`.
        descending: whether the greatest value is first.
        models: ids; an empty set means all.
        since: seconds since 1970.
        until: seconds since 1970.
        min_id: the least number of a request.
        max_id: the greatest number of a request.
        text: must be in the model, the path, the client, the key, the request's id or the error.
        failed: whether only failed requests match.
    """

    page: int = 1
    limit: int = USUAL_ROWS
    sort: str = "id"
    descending: bool = True
    models: frozenset[str] = frozenset()
    since: float = -inf
    until: float = inf
    min_id: float = -inf
    max_id: float = inf
    text: str = ""
    failed: bool = False

    def fits(self, one: Finished) -> bool:
        """Whether a request matches."""
        return (
            self.min_id <= one.id <= self.max_id
            and self.since <= one.at <= self.until
            and (not self.models or one.model in self.models)
            and (not self.failed or bool(one.error))
            and (not self.text or self.text in _searched(one))
        )


def asked_in(query: Mapping[str, Sequence[str]]) -> Asked:
    """Parse the parameters of a query.

    Raises:
        BadRequest: a parameter is not valid.
    """
    sort, order = _one(query, "sort") or "id", _one(query, "order") or "desc"
    if sort not in SORTS:
        raise BadRequest(f"sort={sort}: expected one of {', '.join(SORTS)}", param="sort")
    if order not in ("asc", "desc"):
        raise BadRequest(f"order={order}: expected asc or desc", param="order")
    return Asked(
        page=_whole(query, "page", 1, 1, 1 << 53) or 1,
        limit=_whole(query, "limit", USUAL_ROWS, 1, MOST_ROWS) or USUAL_ROWS,
        sort=sort,
        descending=order == "desc",
        models=models_in(query),
        since=moment_in(query, "start", -inf),
        until=moment_in(query, "end", inf),
        min_id=_whole(query, "min_id", -inf, 0, 1 << 53),
        max_id=_whole(query, "max_id", inf, 0, 1 << 53),
        text=(_one(query, "text") or "").casefold(),
        failed=_one(query, "failed") == "true",
    )


def page_of(requests: Iterable[Finished], asked: Asked, has_capture: Callable[[int], bool]) -> Any:  # noqa: ANN401 -- JSON
    """Return a page of the matching requests, in llama-swap's format."""
    found = sorted(filter(asked.fits, requests), key=SORTS[asked.sort], reverse=asked.descending)
    first = (asked.page - 1) * asked.limit
    rows = found[first : first + asked.limit]
    return {
        "data": [one.row(has_capture=has_capture(one.id)) for one in rows],
        "page": asked.page,
        "limit": asked.limit,
        "total": len(found),
        "total_pages": ceil(len(found) / asked.limit),
    }


def stats_of(requests: Iterable[Finished]) -> dict[str, Any]:
    """Return the totals of requests, in llama-swap's format."""
    counted = list(requests)
    prompt = [one.tokens.prompt_speed for one in counted]
    made = [one.speed for one in counted]
    return {
        "total_requests": len(counted),
        "total_input_tokens": sum(one.tokens.prompt or 0 for one in counted),
        "total_output_tokens": sum(one.tokens.generated or 0 for one in counted),
        "total_cache_tokens": sum(one.tokens.cached or 0 for one in counted),
        "prompt_histogram": histogram([value for value in prompt if value]),
        "gen_histogram": histogram([value for value in made if value]),
        "waits": spread([one.waited for one in counted if one.waited is not None]),
        "first_bytes": spread([one.first_byte for one in counted if one.first_byte is not None]),
    }


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return the median, the 95th and 99th percentile and the maximum, in seconds."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    parts = {f"p{part}": _percentile(ordered, part) for part in (50, 95, 99)}
    return {
        **{name: round(value, 3) for name, value in parts.items()},
        "max": round(ordered[-1], 3),
    }


def histogram(values: Sequence[float]) -> dict[str, Any] | None:
    """Return the histogram of values; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    least, most = ordered[0], ordered[-1]
    size = (most - least) / BINS
    bins = [0] * BINS
    for value in ordered:
        bins[min(int((value - least) / size), BINS - 1) if size else 0] += 1
    return {
        "bins": bins,
        "min": least,
        "max": most,
        "binSize": size,
        **{f"p{part}": _percentile(ordered, part) for part in (50, 95, 99)},
    }


def models_in(query: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the models that a query names; an empty set means all.

    Raises:
        BadRequest: the query names too many models.
    """
    names = frozenset(query.get("model", ()))
    if len(names) > MOST_MODELS:
        raise BadRequest(f"model: expected at most {MOST_MODELS} names", param="model")
    return names


def moment_in(query: Mapping[str, Sequence[str]], name: str, usual: float) -> float:
    """Return a moment in seconds since 1970. The query has such a number, or an RFC 3339 time.

    Raises:
        BadRequest: the parameter is neither.
    """
    text = _one(query, name)
    if not text:
        return usual
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if 0 <= seconds < LATEST:
        return seconds
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        example = "2026-11-29T12:00:00Z"
        raise BadRequest(
            f"{name}={text[:40]}: expected a time such as {example}", param=name
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _one(query: Mapping[str, Sequence[str]], name: str) -> str | None:
    return next(iter(query.get(name, ())), None)


def _whole(
    query: Mapping[str, Sequence[str]], name: str, usual: float, least: int, most: int
) -> Any:  # noqa: ANN401 -- an int, or the default
    text = _one(query, name)
    if text is None:
        return usual
    if not (text.isdecimal() and len(text) < 18 and least <= int(text) <= most):
        raise BadRequest(
            f"{name}={text[:40]}: expected a number from {least} to {most}", param=name
        )
    return int(text)


def _or_lowest(value: float | None) -> float:
    return LOWEST if value is None else value


def _searched(one: Finished) -> str:
    return (
        f"{one.model}\n{one.path}\n{one.client}\n{one.key}\n{one.request}\n{one.error}".casefold()
    )


def _percentile(ordered: Sequence[float], part: int) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))]
