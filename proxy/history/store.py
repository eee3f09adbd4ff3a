"""Keeps requests and decisions beyond the daemon's end, in a file written beside the event loop.

Owns what waits to be written, and handles failures. A full disk or a broken file loses history,
but never a request. `database` owns the contents of the file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import structlog
import trio

from proxy.history.finished import Finished
from proxy.history.spans import Bounds, Kind, Row

if TYPE_CHECKING:  # most daemons have no store, and need not load it
    from sqlite3 import Connection

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

TOGETHER = 1.0  # seconds in which rows are gathered before a write
LAST = 3.0  # seconds that the daemon's end waits for the disk
MOST_WAITING = 20_000  # rows that may wait for the disk
BETWEEN_LOOKS = 300.0  # seconds between two checks for old rows

T = TypeVar("T")
_Batch = tuple[list[Finished], list[tuple[int, Kind, float, str]]]


@attrs.define(eq=False)
class Store:
    """The store.

    Attributes:
        path: of the file; None keeps nothing.
        bounds: the limits on what is kept.
        is_closed: whether nothing is written, because the file could not be read.
    """

    path: Path | None = None
    bounds: Bounds = attrs.field(factory=Bounds)
    _requests: list[Finished] = attrs.field(factory=list, init=False)
    is_closed: bool = attrs.field(default=False, init=False)
    _rows: dict[tuple[Kind, int], tuple[int, Kind, float, str]] = attrs.field(
        factory=dict, init=False
    )
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _looked_at: float = attrs.field(default=0.0, init=False)
    _fails: bool = attrs.field(default=False, init=False)

    def change(self, path: Path | None, bounds: Bounds) -> bool:
        """Use this file and these limits from now on; return whether the file is another one."""
        is_other = path != self.path
        if is_other:
            self.write_now()
            self.path, self.is_closed, self._fails = path, False, False
        self.bounds, self._looked_at = bounds, 0.0
        return is_other

    def add(self, request: Finished) -> None:
        """Write a request soon."""
        if self.path is not None and not self.is_closed and len(self._requests) < MOST_WAITING:
            self._requests.append(request)
            self._stirred.set()

    def keep(self, kind: Kind, row: Row) -> None:
        """Write a row of the timeline soon."""
        if self.path is not None and not self.is_closed and len(self._rows) < MOST_WAITING:
            at = row["at" if kind == "decisions" else "begin"]
            self._rows[kind, row["id"]] = row["id"], kind, at, json.dumps(row)  # it may change
            self._stirred.set()

    async def run(self) -> None:
        """Write what waits, for as long as the daemon runs."""
        while True:
            await self._stirred.wait()
            await trio.sleep(TOGETHER)
            self._stirred = trio.Event()
            if await self._beside(self._write, self._waiting()):
                self._fails = False

    async def write_last(self) -> None:
        """Write the rest at the daemon's end, unless the disk takes too long."""
        with trio.move_on_after(LAST, shield=True):  # nothing would write it later
            await self._beside(self._write, self._waiting())

    async def read(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file, beside the event loop.

        None if there is no file, if it cannot be read, or if the last write failed.
        """
        if self.path is None or self.is_closed or self._fails:
            return None
        batch = self._waiting()  # the query must see these rows too

        def read(path: Path, batch: _Batch) -> T | None:
            self._write(path, batch)
            return self._use(path, what)

        return await self._beside(read, batch)

    def read_now(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file at once; None if there is no file, or it cannot be read."""
        if self.path is None:
            return None
        try:
            return self._use(self.path, what)
        except Exception as error:  # as below
            self._tell(error)
            return None

    def write_now(self) -> None:
        """Write what waits for this file, before another file replaces it."""
        if self.path is not None and not self.is_closed:
            try:
                self._write(self.path, self._waiting())
            except Exception as error:  # as below
                self._tell(error)

    async def _beside(self, work: Callable[[Path, _Batch], T], batch: _Batch) -> T | None:
        """Use the file in a thread. A failure is logged here, on the event loop."""
        path = self.path
        if path is None or self.is_closed:
            return None

        def guarded() -> tuple[T | None, Exception | None]:
            try:
                return work(path, batch), None
            except Exception as error:  # a bad file or row must only cost history
                return None, error

        try:
            found, error = await trio.to_thread.run_sync(guarded, abandon_on_cancel=True)
        except RuntimeError:  # there is no thread left
            found, error = guarded()
        if error is not None:
            self._tell(error)
            return None
        return found

    def _waiting(self) -> _Batch:
        batch = self._requests, list(self._rows.values())
        self._requests, self._rows = [], {}
        return batch

    def _write(self, path: Path, batch: _Batch) -> bool:
        """Write a batch; return whether it had anything."""
        requests, rows = batch
        if not (requests or rows):
            return False
        from proxy.history import database

        def write(file: Connection) -> None:
            database.write(file, requests, rows)
            if time.monotonic() - self._looked_at >= BETWEEN_LOOKS:
                self._looked_at = time.monotonic()
                database.forget_old(file, self.bounds)

        self._use(path, write)
        return True

    def _use(self, path: Path, what: Callable[[Connection], T]) -> T:
        from proxy.history.database import opened

        with opened(path) as file:
            return what(file)

    def _tell(self, error: Exception) -> None:
        if not self._fails:
            log.error(
                f"Cannot use {self.path}: {error}. Requests are served, but what happens "
                "meanwhile is not stored. Free disk space, or set another file with store.path",
                reason=str(error),
            )
        self._fails = True

    def close(self) -> None:
        """Write nothing more: the contents of the file are not known."""
        self.is_closed = True
