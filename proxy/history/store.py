"""What keeps requests and decisions beyond the daemon's end: written beside the event loop.

Owns what waits to be written, and what a failure means. A disk that is full, or a file that is
broken, loses history and never a request. The file itself is `database`'s.
"""

from __future__ import annotations

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
_Batch = tuple[list[Finished], list[tuple[Kind, Row]]]


@attrs.define(eq=False)
class Store:
    """The file.

    Attributes:
        path: where it is; None keeps nothing.
        bounds: how much is kept.
    """

    path: Path | None = None
    bounds: Bounds = attrs.field(factory=Bounds)
    _requests: list[Finished] = attrs.field(factory=list, init=False)
    _rows: dict[tuple[Kind, int], Row] = attrs.field(factory=dict, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _looked_at: float = attrs.field(default=0.0, init=False)
    _fails: bool = attrs.field(default=False, init=False)

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
        """Write what has come, for as long as the daemon runs."""
        while True:
            await self._stirred.wait()
            await trio.sleep(TOGETHER)
            self._stirred = trio.Event()
            await self._beside(self._write)

    async def write_last(self) -> None:
        """Write what has come, at the end, unless the disk keeps others waiting."""
        with trio.move_on_after(LAST, shield=True):  # the end has come: nothing else would write it
            await self._beside(self._write)

    async def read(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file, beside the loop.

        None if there is none, if it cannot be read, or if what came last could not be written.
        """
        if self.path is None:
            return None

        def read(batch: _Batch) -> T | None:
            self._write(batch)  # it is asked for, too
            return None if self._fails else self.read_now(what)

        return await self._beside(read)

    def read_now(self, what: Callable[[Connection], T]) -> T | None:
        """Read from the file; None if there is none, or it cannot be read."""
        if self.path is None:
            return None
        return self._use(what)

    async def _beside(self, work: Callable[[_Batch], T]) -> T:
        """Work with what waits in a thread; what comes meanwhile waits for the next time.

        Where there is no thread left, it is done all the same.
        """
        batch = self._waiting()
        try:
            return await trio.to_thread.run_sync(work, batch, abandon_on_cancel=True)
        except RuntimeError:
            return work(batch)

    def _waiting(self) -> _Batch:
        batch = self._requests, [(kind, row) for (kind, _), row in self._rows.items()]
        self._requests, self._rows = [], {}
        return batch

    def _write(self, batch: _Batch) -> None:
        requests, rows = batch
        if not (requests or rows):
            return
        from proxy.history import database

        def write(file: Connection) -> None:
            database.write(file, requests, rows)
            if time.monotonic() - self._looked_at >= BETWEEN_LOOKS:
                self._looked_at = time.monotonic()
                database.forget_old(file, self.bounds)
            self._fails = False

        self._use(write)

    def _use(self, what: Callable[[Connection], T]) -> T | None:
        from sqlite3 import Error

        from proxy.history.database import opened

        if self.path is None:
            return None
        try:
            with opened(self.path) as file:
                return what(file)
        except (Error, OSError) as error:
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        if not self._fails:
            log.error(
                f"Cannot use {self.path}: {error}. Requests are served; what happens meanwhile "
                "is missing there. Make room, or choose another file with store.path",
                reason=str(error),
            )
        self._fails = True
