"""The tables of the store in SQLite: writes rows, reads rows, deletes the oldest.

Owns the SQL of the tables. The first use of a store loads this module, as most daemons have none.
`store` decides when to write, and handles failures.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs

from proxy.forwarding.tokens import Tokens
from proxy.history.finished import Finished
from proxy.history.spans import DAY, KINDS, MOST_OF_A_KIND, Bounds, Kind, Row

PART_THAT_GOES = 0.1  # of the rows, if the file is too large
LEAST_KEPT = 100  # rows of a table, however large the file is
BUSY = 5.0  # seconds that another program may lock the file
MB = 1_000_000

_COLUMNS = [one.name for one in attrs.fields(Finished) if one.name != "tokens"]
ALL = [*_COLUMNS, *Tokens._fields]
_TABLES = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS llamadoze_requests (id INTEGER PRIMARY KEY, {", ".join(ALL[1:])});
CREATE INDEX IF NOT EXISTS llamadoze_requests_at ON llamadoze_requests (at);
CREATE TABLE IF NOT EXISTS llamadoze_timeline (id INTEGER, kind TEXT, at REAL, row TEXT,
    PRIMARY KEY (kind, id));
CREATE INDEX IF NOT EXISTS llamadoze_timeline_at ON llamadoze_timeline (at);
"""
_NAMES = ("llamadoze_requests", "llamadoze_timeline")
_INSERT = f"""INSERT OR REPLACE INTO llamadoze_requests ({", ".join(ALL)})
VALUES ({", ".join("?" * len(ALL))})"""  # noqa: S608 -- names of ours
_INSERT_ROW = "INSERT OR REPLACE INTO llamadoze_timeline VALUES (?, ?, ?, ?)"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for the block, and create its tables if they are missing.

    Raises:
        sqlite3.Error, OSError: the file is no database, or cannot be used.
    """
    with closing(sqlite3.connect(str(path), timeout=BUSY)) as file:
        file.executescript(_TABLES)
        file.create_function("casefold", 1, str.casefold, deterministic=True)
        yield file


def write(
    file: sqlite3.Connection,
    requests: Iterable[Finished],
    rows: Iterable[tuple[int, Kind, float, str]],
) -> None:
    """Write requests, and rows of the timeline: their number, kind, moment and JSON."""
    file.executemany(_INSERT, [_values(one) for one in requests])
    file.executemany(_INSERT_ROW, rows)
    file.commit()


def forget_old(file: sqlite3.Connection, bounds: Bounds) -> None:
    """Delete what is beyond the limits, and give the space back to the disk."""
    if bounds.days:
        oldest = time.time() - bounds.days * DAY
        for table in _NAMES:
            file.execute(f"DELETE FROM {table} WHERE at < ?", (oldest,))  # noqa: S608 -- ours
    while bounds.megabytes and _size(file) > bounds.megabytes * MB:
        if not _forget_a_part(file):
            break
    file.commit()
    file.executescript("PRAGMA incremental_vacuum")  # `execute` would give back only one page


def _size(file: sqlite3.Connection) -> int:
    """Return the bytes that the rows use. Free pages do not count: they are given back later."""
    pages, free, size = (
        file.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _forget_a_part(file: sqlite3.Connection) -> int:
    """Delete the oldest rows of each table; return how many those were."""
    gone = 0
    for table in _NAMES:
        count = file.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 -- ours
        if count < LEAST_KEPT:  # something else uses the space
            continue
        part = max(1, int(count * PART_THAT_GOES))
        text = f"""DELETE FROM {table} WHERE rowid IN
            (SELECT rowid FROM {table} ORDER BY at LIMIT ?)"""  # noqa: S608 -- ours
        gone += file.execute(text, (part,)).rowcount
    return gone


# Reading.


def last_requests(file: sqlite3.Connection, most: int) -> list[Finished]:
    """Return the newest requests, the oldest of them first."""
    text = f"SELECT {', '.join(ALL)} FROM llamadoze_requests ORDER BY id DESC LIMIT ?"  # noqa: S608 -- ours
    return [request_in(row) for row in reversed(file.execute(text, (most,)).fetchall())]


def last_rows(file: sqlite3.Connection, since: float) -> dict[Kind, list[Row]]:
    """Return the rows of the timeline since a moment, by kind, in the order of their numbers."""
    found: dict[Kind, list[Row]] = {}
    text = """SELECT row FROM llamadoze_timeline WHERE kind = ? AND at >= ?
        ORDER BY id DESC LIMIT ?"""
    for kind in KINDS:
        rows = file.execute(text, (kind, since, MOST_OF_A_KIND)).fetchall()
        found[kind] = [json.loads(row) for (row,) in reversed(rows)]
    return found


def last_numbers(file: sqlite3.Connection) -> tuple[int, int]:
    """Return the greatest number of a request, and of a row of the timeline."""
    requests, rows = (
        file.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0  # noqa: S608 -- ours
        for table in _NAMES
    )
    return requests, rows


def request_in(values: Sequence[Any]) -> Finished:
    """Return a request from the values of its columns."""
    known = dict(zip(_COLUMNS, values, strict=False))
    return Finished(**known, tokens=Tokens(*values[len(_COLUMNS) :]))


def _values(request: Finished) -> tuple[Any, ...]:
    return (*(getattr(request, name) for name in _COLUMNS), *request.tokens)
