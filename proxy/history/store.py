"""The file that keeps requests and decisions beyond the daemon's end: SQLite, off the event loop.

Owns the file, its tables and its bounds. A disk that is full, or a file that is broken, loses
history and never a request.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import structlog
import trio

from proxy.forwarding.tokens import Tokens
from proxy.history.finished import Finished
from proxy.history.spans import DAY, Kind, Row

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

TOGETHER = 1.0  # seconds in which what is to be written is gathered
MOST_WAITING = 20_000  # rows, while the disk does not take them
BETWEEN_LOOKS = 300.0  # seconds, after which old rows are looked for
PART_THAT_GOES = 0.1  # of the rows, where the file is too large
BUSY = 5.0  # seconds that another program may hold the file
MB = 1_000_000

_COLUMNS = [one.name for one in attrs.fields(Finished) if one.name != "tokens"]
_TOKENS = list(Tokens._fields)
ALL = [*_COLUMNS, *_TOKENS]
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
_INSERT_ROW = "INSERT OR REPLACE INTO llamadoze_timeline VALUES (?, ?, ?, ?)"
_AT = {"decisions": "at"}

T = TypeVar("T")
_Batch = tuple[list[Finished], list[tuple[tuple[Kind, int], Row]]]


@attrs.frozen(kw_only=True)
class Bounds:
    """How much is kept.

    Attributes:
        megabytes: of the file; 0 is no limit.
        days: that it goes back; 0 is no limit.
    """

    megabytes: int = 0
    days: int = 0


@attrs.define(eq=False)
class Store:
    """The file.

    Attributes:
        path: where it is; None keeps nothing.
        bounds: how much is kept.
    """

    path: Path | None = None
    bounds: Bounds = Bounds()
    _requests: list[Finished] = attrs.field(factory=list, init=False)
    _rows: dict[tuple[Kind, int], Row] = attrs.field(factory=dict, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _looked_at: float = attrs.field(default=0.0, init=False)
    _has_told: bool = attrs.field(default=False, init=False)

    def change(self, path: Path | None, bounds: Bounds) -> bool:
        """Write to a file from now on, within bounds; return whether it is another one."""
        is_other, self.path = path != self.path, path
        self.bounds, self._looked_at = bounds, 0.0
        return is_other

    def add(self, request: Finished) -> None:
        """Write a request down, soon."""
        if self.path is not None and len(self._requests) < MOST_WAITING:
            self._requests.append(request)
            self._stirred.set()

    def keep(self, kind: Kind, row: Row) -> None:
        """Write a row of the timeline down, soon."""
        if self.path is not None and len(self._rows) < MOST_WAITING:
            self._rows[kind, row["id"]] = row
            self._stirred.set()

    async def run(self) -> None:
        """Write what has come, for as long as the daemon runs, and the last of it at the end."""
        try:
            while True:
                await self._stirred.wait()
                await trio.sleep(TOGETHER)
                self._stirred = trio.Event()
                await self._beside(self._write)
        finally:
            self._write(self._waiting())

    async def _beside(self, write: Callable[[_Batch], T]) -> T:
        """Write what waits in a thread; what comes meanwhile waits for the next time.

        Where there is no thread left, it is written all the same.
        """
        batch = self._waiting()
        try:
            return await trio.to_thread.run_sync(write, batch)
        except RuntimeError:
            return write(batch)

    def _waiting(self) -> _Batch:
        batch = self._requests, list(self._rows.items())
        self._requests, self._rows = [], {}
        return batch

    def _write(self, batch: _Batch) -> None:
        requests, rows = batch
        if self.path is None or not (requests or rows):
            return
        try:
            with self._opened() as file:
                file.executemany(_INSERT, [_values(one) for one in requests])
                file.executemany(_INSERT_ROW, [_as_row(kind, row) for (kind, _), row in rows])
                file.commit()
                self._forget_old(file)
            self._has_told = False
        except (sqlite3.Error, OSError) as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._has_told:
            log.error(
                f"Cannot write {self.path}: {error}. Requests are served; what happens meanwhile "
                "is missing there. Make room, or choose another file with store.path",
                reason=str(error),
            )
        self._has_told = True

    def _forget_old(self, file: sqlite3.Connection) -> None:
        now = time.time()
        if now - self._looked_at < BETWEEN_LOOKS:
            return
        self._looked_at = now
        if self.bounds.days:
            oldest = now - self.bounds.days * DAY
            for table in _NAMES:
                file.execute(f"DELETE FROM {table} WHERE at < ?", (oldest,))  # noqa: S608 -- ours
        while self.bounds.megabytes and _size(file) > self.bounds.megabytes * MB:
            if not _forget_a_part(file):
                break
        file.commit()
        file.execute("PRAGMA incremental_vacuum").fetchall()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(str(self.path), timeout=BUSY)) as file:
            file.executescript(_TABLES)
            yield file

    # What is read.

    def read_now(self, what: Callable[[sqlite3.Connection], T]) -> T | None:
        """Read from the file; None if there is none, or it cannot be read."""
        if self.path is None:
            return None
        try:
            with self._opened() as file:
                return what(file)
        except (sqlite3.Error, OSError) as error:
            self._tell(error)
            return None

    async def read(self, what: Callable[[sqlite3.Connection], T]) -> T | None:
        """Read from the file, beside the loop; None if there is none, or it cannot be read."""
        if self.path is None:
            return None

        def read(batch: _Batch) -> T:
            self._write(batch)  # it is asked for, too
            with self._opened() as file:
                return what(file)

        try:
            return await self._beside(read)
        except (sqlite3.Error, OSError) as error:
            self._tell(error)
            return None


_NAMES = ("llamadoze_requests", "llamadoze_timeline")
_INSERT = f"""INSERT OR REPLACE INTO llamadoze_requests ({", ".join(ALL)})
VALUES ({", ".join("?" * len(ALL))})"""  # noqa: S608 -- names of ours


def last_requests(file: sqlite3.Connection, most: int) -> list[Finished]:
    """Return the newest requests, the oldest of them first."""
    text = f"SELECT {', '.join(ALL)} FROM llamadoze_requests ORDER BY id DESC LIMIT ?"  # noqa: S608
    return [request_in(row) for row in reversed(file.execute(text, (most,)).fetchall())]


def last_rows(file: sqlite3.Connection, since: float) -> dict[Kind, list[Row]]:
    """Return the rows of the timeline since a moment, by kind, in the order of their numbers."""
    found: dict[Kind, list[Row]] = {}
    text = "SELECT kind, row FROM llamadoze_timeline WHERE at >= ? ORDER BY id"
    for kind, row in file.execute(text, (since,)):
        found.setdefault(kind, []).append(json.loads(row))
    return found


def _values(request: Finished) -> tuple[Any, ...]:
    return (*(getattr(request, name) for name in _COLUMNS), *request.tokens)


def request_in(values: Sequence[Any]) -> Finished:
    """Return a request from its columns, in their order."""
    known = dict(zip(_COLUMNS, values, strict=False))
    return Finished(**known, tokens=Tokens(*values[len(_COLUMNS) :]))


def _as_row(kind: Kind, row: Row) -> tuple[int, str, float, str]:
    return row["id"], kind, row[_AT.get(kind, "begin")], json.dumps(row)


def _size(file: sqlite3.Connection) -> int:
    """Return the bytes that the rows take; pages that are free are given back later."""
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
        part = max(1, int(count * PART_THAT_GOES))
        text = f"""DELETE FROM {table} WHERE rowid IN
            (SELECT rowid FROM {table} ORDER BY at LIMIT ?)"""  # noqa: S608 -- ours
        gone += file.execute(text, (part,)).rowcount
    return gone
