"""What keeps requests and decisions beyond the daemon's end: written beside the event loop.

Owns what waits to be written, and what a failure means. A disk that is full, or a file that is
broken, loses history and never a request. The file itself is `database`'s.
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

if TYPE_CHECKING:  # most daemons have no store, and need not wait for it
    from sqlite3 import Connection

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

TOGETHER = 1.0  # seconds in which what is to be written is gathered
LAST = 3.0  # seconds that the end waits for a disk
MOST_WAITING = 20_000  # rows, while the disk does not take them
BETWEEN_LOOKS = 300.0  # seconds, after which old rows are looked for

T = TypeVar("T")
_Batch = tuple[list[Finished], list[tuple[int, Kind, float, str]]]


@attrs.define(eq=False)
class Store:
    """The file.

    Attributes:
        path: where it is; None keeps nothing.
        bounds: how much is kept.
        is_closed: whether nothing is written, since what it holds could not be read.
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
        """Write to a file from now on, within bounds; return whether it is another one."""
        is_other = path != self.path
        if is_other:
            self.write_now()
            self.path, self.is_closed, self._fails = path, False, False
        self.bounds, self._looked_at = bounds, 0.0
        return is_other

    def add(self, request: Finished) -> None:
        """Write a request down, soon."""
        if self.path is not None and not self.is_closed and len(self._requests) < MOST_WAITING:
            self._requests.append(request)
            self._stirred.set()

    def keep(self, kind: Kind, row: Row) -> None:
        """Write a row of the timeline down, soon."""
        if self.path is not None and not self.is_closed and len(self._rows) < MOST_WAITING:
            at = row["at" if kind == "decisions" else "begin"]
            self._rows[kind, row["id"]] = row["id"], kind, at, json.dumps(row)  # it may change yet
            self._stirred.set()

    async def run(self) -> None:
        """Write what has come, for as long as the daemon runs."""
        while True:
            await self._stirred.wait()
            await trio.sleep(TOGETHER)
            self._stirred = trio.Event()
            if await self._beside(self._write, self._waiting()):
                self._fails = False

    async def write_last(self) -> None:
        """Write what has come, at the end, unless the disk keeps others waiting."""
        with trio.move_on_after(LAST, shield=True):  # the end has come: nothing else would write it
            await self._beside(self._write, self._waiting())

    async def read(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file, beside the loop.

        None if there is none, if it cannot be read, or if what came last could not be written.
        """
        if self.path is None or self.is_closed or self._fails:
            return None
        batch = self._waiting()  # it is asked for, too

        def read(path: Path, batch: _Batch) -> T | None:
            self._write(path, batch)
            return self._use(path, what)

        return await self._beside(read, batch)

    def read_now(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file; None if there is none, or it cannot be read."""
        if self.path is None:
            return None
        try:
            return self._use(self.path, what)
        except Exception as error:  # as below
            self._tell(error)
            return None

    def write_now(self) -> None:
        """Write what has come to the file that it came for, before that is another one."""
        if self.path is not None and not self.is_closed:
            try:
                self._write(self.path, self._waiting())
            except Exception as error:  # as below
                self._tell(error)

    async def _beside(self, work: Callable[[Path, _Batch], T], batch: _Batch) -> T | None:
        """Work with the file in a thread; a fault of it is told of here, on the loop."""
        path = self.path
        if path is None or self.is_closed:
            return None

        def guarded() -> tuple[T | None, Exception | None]:
            try:
                return work(path, batch), None
            except Exception as error:  # whatever is wrong with a file or a row costs history only
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
        """Write; return whether there was anything."""
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
                f"Cannot use {self.path}: {error}. Requests are served; what happens meanwhile "
                "is missing there. Make room, or choose another file with store.path",
                reason=str(error),
            )
        self._fails = True

    def close(self) -> None:
        """Write nothing more into a file of which it is not known what it holds."""
        self.is_closed = True
