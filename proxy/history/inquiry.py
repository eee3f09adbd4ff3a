"""The queries of `paging`, on the store: in SQL, because the store may contain a year.

Owns the SQL. `paging` owns the format of the answers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from math import ceil, inf
from typing import Any

from proxy.history.database import ALL, request_in
from proxy.history.finished import Finished
from proxy.history.paging import Asked, histogram, spread

SPEED = """coalesce(speed, CASE WHEN generated > 0 AND seconds - first_byte > 0.001
THEN generated / (seconds - first_byte) END)"""
SORTED_BY = {
    "id": "id",
    "time": "at",
    "model": "model",
    "req_path": "path",
    "resp_status_code": "status",
    "resp_content_type": "content_type",
    "cached": "coalesce(cached, -1)",
    "prompt": "coalesce(prompt, -1)",
    "generated": "coalesce(generated, -1)",
    "drafted": "coalesce(drafted, -1)",
    "prompt_speed": "coalesce(prompt_speed, -1)",
    "gen_speed": f"coalesce({SPEED}, -1)",
    "duration": "seconds",
}
MOST_PLAYED = 200_000  # requests
MOST_SPEEDS = 100_000  # the newest ones, which the spread describes


def page_in(
    file: sqlite3.Connection, asked: Asked, has_capture: Callable[[int], bool]
) -> dict[str, Any]:
    """Return a page of the matching requests, in llama-swap's format."""
    where, values = _where(asked)
    total = file.execute(f"SELECT count(*) FROM llamadoze_requests{where}", values).fetchone()[0]  # noqa: S608 -- made of names of ours; clients' words are values
    order = f"{SORTED_BY[asked.sort]} {'DESC' if asked.descending else 'ASC'}, id DESC"
    found = file.execute(
        f"SELECT {', '.join(ALL)} FROM llamadoze_requests{where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608 -- as above
        (*values, asked.limit, (asked.page - 1) * asked.limit),
    )
    rows: list[Finished] = list(map(request_in, found))
    return {
        "data": [one.row(has_capture=has_capture(one.id)) for one in rows],
        "page": asked.page,
        "limit": asked.limit,
        "total": total,
        "total_pages": ceil(total / asked.limit),
    }


def requests_in(file: sqlite3.Connection, asked: Asked) -> list[Finished]:
    """Return the matching requests, the newest last; at most the `MOST_PLAYED` newest."""
    where, values = _where(asked)
    text = f"SELECT {', '.join(ALL)} FROM llamadoze_requests{where} ORDER BY id DESC LIMIT ?"  # noqa: S608 -- as above
    found = file.execute(text, (*values, MOST_PLAYED)).fetchall()
    return [request_in(row) for row in reversed(found)]


def stats_in(file: sqlite3.Connection, models: Collection[str]) -> dict[str, Any]:
    """Return the totals of the requests of some models, or of all."""
    where, values = _where(Asked(models=frozenset(models)))
    sums = "count(*), total(prompt), total(generated), total(cached)"
    totals = file.execute(f"SELECT {sums} FROM llamadoze_requests{where}", values).fetchone()  # noqa: S608 -- as above
    names = ("total_requests", "total_input_tokens", "total_output_tokens", "total_cache_tokens")
    return {
        **{name: int(total) for name, total in zip(names, totals, strict=True)},
        "prompt_histogram": histogram(_speeds(file, "prompt_speed", where, values)),
        "gen_histogram": histogram(_speeds(file, SPEED, where, values)),
        "waits": spread(_seconds(file, "waited", where, values)),
        "first_bytes": spread(_seconds(file, "first_byte", where, values)),
    }


def _speeds(file: sqlite3.Connection, what: str, where: str, values: list[Any]) -> list[float]:
    text = f"SELECT {what} FROM llamadoze_requests{where} ORDER BY id DESC LIMIT {MOST_SPEEDS}"  # noqa: S608 -- as above
    return [value for (value,) in file.execute(text, values) if value]


def _seconds(file: sqlite3.Connection, what: str, where: str, values: list[Any]) -> list[float]:
    text = f"SELECT {what} FROM llamadoze_requests{where} ORDER BY id DESC LIMIT {MOST_SPEEDS}"  # noqa: S608 -- as above
    return [value for (value,) in file.execute(text, values) if value is not None]


def _where(asked: Asked) -> tuple[str, list[Any]]:
    """Return the condition and its values."""
    bounds = {
        "id >= ?": asked.min_id,
        "id <= ?": asked.max_id,
        "at >= ?": asked.since,
        "at <= ?": asked.until,
    }
    found: list[tuple[str, list[Any]]] = [
        (text, [value]) for text, value in bounds.items() if abs(value) < inf
    ]
    if asked.models:
        places = ", ".join("?" * len(asked.models))
        found.append((f"model IN ({places})", sorted(asked.models)))
    if asked.failed:
        found.append(("error != ''", []))
    if asked.text:
        words = " || char(10) || ".join(("model", "path", "client", "key", "request", "error"))
        found.append((f"instr(casefold({words}), ?)", [asked.text]))
    text = f" WHERE {' AND '.join(one for one, _ in found)}" if found else ""
    return text, [value for _, values in found for value in values]
