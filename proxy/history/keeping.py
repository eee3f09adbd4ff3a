"""The history as a whole: its parts, the rows of an earlier daemon, and the samples.

Owns which settings limit which part, and when the machine and its memory are sampled: now and then
while a model has a process, and more often while somebody watches.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import structlog
import trio

from configschema import Config
from configschema.rules.checks import SHORTEST_SAMPLE, duration_in
from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call, InFlight, rfc3339
from proxy.forwarding.tokens import Tokens
from proxy.history import paging
from proxy.history.captures import Captures
from proxy.history.finished import DEFAULT_KEPT, Activity, Ended, Finished
from proxy.history.memorylook import BETWEEN_SAMPLES, MemorySamples, memory_of
from proxy.history.recorder import Recorder
from proxy.history.spans import DAY, Bounds, Kind, Row, Timeline
from proxy.history.store import Store
from supervisor import Supervisor
from supervisor.processes.memory import OF_DRIVER, beside
from supervisor.room.devices import look
from supervisor.states.table import HAS_PROCESS

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

if TYPE_CHECKING:  # most daemons have no store, and need not load it
    from sqlite3 import Connection

LATER = 4.0  # seconds by which the first sample comes earlier
HOUR = 3600
Recalled = tuple[int, int, list[Finished], dict[Kind, list[Row]]]
SOON = 0.5  # seconds; one step often follows another
WHILE_NOTHING_MOVES = 60.0  # seconds between samples of memory
WHILE_WATCHED = 2.0  # seconds between samples of memory


@attrs.define(eq=False)
class History:
    """The history.

    Attributes:
        supervisor: the owner of the models.
        in_flight: lists the requests in flight.
        on_memory: called with each sample of memory.
        watches: whether somebody watches memory as it changes.
    """

    supervisor: Supervisor
    in_flight: InFlight
    on_memory: Callable[[Row], None] = lambda _: None
    watches: Callable[[], bool] = lambda: False
    timeline: Timeline = attrs.field(factory=Timeline, init=False)
    recorder: Recorder = attrs.field(init=False)
    activity: Activity = attrs.field(factory=Activity, init=False)
    captures: Captures = attrs.field(factory=Captures, init=False)
    memory: MemorySamples = attrs.field(factory=MemorySamples, init=False)
    store: Store = attrs.field(factory=Store, init=False)
    began: float = attrs.field(factory=time.time, init=False)
    system: deque[Row] = attrs.field(factory=deque, init=False)
    gpus: deque[Row] = attrs.field(factory=deque, init=False)
    _has_recalled: bool = attrs.field(default=False, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_sampling: bool = attrs.field(default=False, init=False)
    _has_moved: bool = attrs.field(default=False, init=False)
    _looked_at: float = attrs.field(default=-inf, init=False)
    _sampled_at: float = attrs.field(factory=lambda: trio.current_time() - LATER, init=False)

    @recorder.default
    def _begun(self) -> Recorder:
        return Recorder(self.supervisor, self.timeline)

    def __attrs_post_init__(self) -> None:
        self.apply()

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self.supervisor.config

    def apply(self) -> None:
        """Apply the settings that are in effect now."""
        config = self.config
        most = config.metrics_max_in_memory
        self.activity.bound(most if most > 0 else DEFAULT_KEPT)
        self.activity.sessions = config.ui.activity.session_id
        self.captures.change(config.capture_buffer, self.in_flight)
        store = config.store
        bounds = Bounds(megabytes=store.max_mb, days=store.max_days) if store else Bounds()
        if self.store.change(Path(store.path) if store else None, bounds):
            self._go_on_from_the_file()
        self.timeline.on_kept = self.store.keep if store else None
        self.stir()

    def _go_on_from_the_file(self) -> None:
        """Continue the numbers in the file. At the start, also take its rows of the last day.

        At the start, no request is served before this. Else two requests could get one number.
        """
        if self.store.path is None:
            return
        from proxy.history.database import last_numbers, last_requests, last_rows

        most, is_first = self.activity.most, not self._has_recalled
        self._has_recalled = True

        def recall(file: Connection) -> Recalled:
            requests = last_requests(file, most) if is_first else []
            rows = last_rows(file, time.time() - DAY) if is_first else {}
            return *last_numbers(file), requests, rows

        found = self.store.read_now(recall)
        if found is None:
            self.store.close()
            log.error("llamadoze writes nothing to this store until you reload with another one")
            return
        number, row_number, requests, rows = found
        self.in_flight.begin_after(number)
        for request in requests:
            self.activity.add(request)
        self.timeline.recall(rows, row_number)

    def stir(self) -> None:
        """Note that the settings have changed, or that a watcher came or went."""
        self._stirred.set()

    def moved(self) -> None:
        """Note that a model has taken or freed memory. Watchers soon see the change."""
        if self.watches():
            self._has_moved = True
            self.stir()
        elif not self._is_sampling:  # begins with the first process, as it needs 4 MiB
            self.stir()

    def finished(self, call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
        """Keep a finished request."""
        if not call.number:  # it was refused before it was read
            return
        ended = Ended.of(call, answer, tokens, now)
        self.activity.add(ended)
        self.captures.add(call, answer)
        if self.store.path is not None:
            self.store.add(ended.finished(self.activity.sessions))
        if call.known:
            self.recorder.used(call, now)

    # Queries.

    async def page(self, asked: paging.Asked) -> Any:  # noqa: ANN401 -- JSON
        """Return finished requests, from the store if there is one."""
        has_capture = self.captures.numbers().__contains__
        if self.store.path is None:
            return paging.page_of(self.activity, asked, has_capture)
        from proxy.history import inquiry

        stored = await self.store.read(lambda file: inquiry.page_in(file, asked, has_capture))
        return stored or paging.page_of(self.activity, asked, has_capture)

    async def stats(self, models: frozenset[str]) -> Any:  # noqa: ANN401 -- JSON
        """Return the totals of finished requests, from the store if there is one."""
        stored = None
        if self.store.path is not None:
            from proxy.history import inquiry

            stored = await self.store.read(lambda file: inquiry.stats_in(file, models))
        kept = (one for one in self.activity if not models or one.model in models)
        return stored or paging.stats_of(kept)

    def happened(self, since: float, until: float) -> Row:
        """Return what happened within these times, in the format for pages."""
        self.recorder.end_forgotten()
        rows: Row = {"now": time.time(), "since": since, "until": until}
        return (
            rows
            | self.timeline.between(since, until)
            | {"memory": self.memory.between(since, until)}
        )

    async def requests_between(self, since: float, until: float) -> list[Finished]:
        """Return the requests that arrived within these times, in that order."""
        asked = paging.Asked(since=since, until=until)
        stored = None
        if self.store.path is not None:
            from proxy.history import inquiry

            stored = await self.store.read(lambda file: inquiry.requests_in(file, asked))
        return stored or [one for one in self.activity if asked.fits(one)]

    async def memory_now(self) -> Row | None:
        """Return the use of memory. A sample of the last half second is used again."""
        latest, now = self.memory.latest, time.time()
        if latest is not None and now - latest["at"] < SOON:
            return latest
        return await self._look_at_memory(now)

    def samples_after(self, after: float) -> Row:
        """Return the samples of the machine since a moment, in llama-swap's format."""
        self._is_sampling = True
        self.stir()
        kinds = {"sys_stats": self.system, "gpu_stats": self.gpus}
        text = rfc3339(after)
        return {
            name: [one for one in rows if one["timestamp"] > text] for name, rows in kinds.items()
        }

    async def hardware(self) -> Row:
        """Return the description of the machine."""
        return await beside(_describe, None, OF_DRIVER)

    # What runs all the time.

    async def run(self) -> None:
        """Write the store and take samples, for as long as the daemon runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.store.run)
            nursery.start_soon(self._sample_now_and_then)

    async def end(self) -> None:
        """At the daemon's end, end what has not ended, and write it."""
        self.recorder.close()
        await self.store.write_last()

    async def _sample_now_and_then(self) -> None:
        while True:
            with trio.move_on_after(self._pause()):
                await self._stirred.wait()
            self._stirred = trio.Event()
            await self._look()

    def _pause(self) -> float:
        """Return the seconds until the next sample of the machine or of memory."""
        now, due = trio.current_time(), inf
        if self.every and self._is_sampling:
            due = self._sampled_at + self.every
        if self.watches():
            due = min(due, self._looked_at + (SOON if self._has_moved else WHILE_WATCHED))
        return max(0.0, due - now)

    @property
    def every(self) -> float:
        """The seconds between samples of the machine; 0 means no samples."""
        settings = self.config.performance
        return 0 if settings.disabled else duration_in(settings.every) or SHORTEST_SAMPLE

    async def _look(self) -> None:
        now, at = trio.current_time(), time.time()
        self._is_sampling = self._is_sampling or self._has_processes()
        is_due = self._is_sampling and bool(self.every) and now >= self._sampled_at + self.every
        if self._wants_memory(now, is_due=is_due):
            self._looked_at, self._has_moved = now, False
            if row := await self._look_at_memory(at):
                self.on_memory(row)
        if is_due:
            self._sampled_at = now
            await self._sample(at)

    async def _look_at_memory(self, at: float) -> Row | None:
        if (seen := await self.supervisor.room.seen()) is None:
            return None
        row = memory_of(self.supervisor, seen, at)
        self.memory.add(row)
        return row

    def _wants_memory(self, now: float, *, is_due: bool) -> bool:
        """Whether to sample memory. This looks at all processes, and delays streams by 20 ms."""
        since = now - self._looked_at
        if self.watches():
            return since >= (SOON if self._has_moved else WHILE_WATCHED)
        pause = BETWEEN_SAMPLES if self._has_moved else WHILE_NOTHING_MOVES
        return is_due and since >= pause and self._has_processes()

    def _has_processes(self) -> bool:
        return any(one.at.state in HAS_PROCESS for one in self.supervisor.servers.values())

    async def _sample(self, at: float) -> None:
        most = int(HOUR / self.every)
        try:
            system, gpus = await beside(_sample, at, OF_DRIVER)
        except Exception as error:  # a kernel or a driver hides it: one sample is missing
            log.debug(f"Sampling the machine failed: {error!r}")
            return
        self.system.append(system)
        self.gpus.extend(gpus)
        while len(self.system) > most:
            self.system.popleft()
        while len(self.gpus) > most * max(1, len(gpus)):
            self.gpus.popleft()


def _sample(at: float) -> tuple[Row, list[Row]]:
    """Sample the machine. The modules for that are imported here, in a thread."""
    from proxy.history.machine import sample, sample_gpus

    readings = look(())
    return sample(at), sample_gpus(at, readings) if readings else []


def _describe(_: None) -> Row:
    from proxy.history.machine import describe

    return describe(look(()))
