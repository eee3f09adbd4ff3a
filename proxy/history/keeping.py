"""All that is kept of what happens: put together, begun with what an earlier daemon kept, sampled.

Owns which settings bound what, and when the machine is looked at: now and then while a model has a
process, and more often while somebody watches.
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

if TYPE_CHECKING:  # most daemons have no store, and need not wait for it
    from sqlite3 import Connection

LATER = 4.0  # seconds of the time between samples that have passed when the daemon begins
HOUR = 3600
Recalled = tuple[int, int, list[Finished], dict[Kind, list[Row]]]
SOON = 0.5  # seconds; a step is often followed by another
WHILE_NOTHING_MOVES = 60.0  # seconds between looks at memory
WHILE_WATCHED = 2.0  # seconds between looks at memory


@attrs.define(eq=False)
class History:
    """What is kept.

    Attributes:
        supervisor: whose models.
        in_flight: lists the requests that run.
        on_memory: told of each look at memory.
        watches: whether somebody wants to see memory as it changes.
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
        """Heed the settings that are in effect now."""
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
        """Let numbers go on from those in the file; at the start, take what it holds of a day.

        Nothing is served before that, at the start: else two would have the same number.
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
            log.error("Nothing is written there until llamadoze is reloaded with another store")
            return
        number, row_number, requests, rows = found
        self.in_flight.begin_after(number)
        for request in requests:
            self.activity.add(request)
        self.timeline.recall(rows, row_number)

    def stir(self) -> None:
        """Take note that the settings have changed, or who watches."""
        self._stirred.set()

    def moved(self) -> None:
        """Take note that a model has taken memory, or given it back: who watches sees it soon."""
        if self.watches():
            self._has_moved = True
            self.stir()
        elif (
            not self._is_sampling
        ):  # which begins with the first process: what it needs takes 4 MiB
            self.stir()

    def finished(self, call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
        """Keep a request that has ended."""
        if not call.number:  # it was refused before it was known what it wants
            return
        ended = Ended.of(call, answer, tokens, now)
        self.activity.add(ended)
        self.captures.add(call, answer)
        if self.store.path is not None:
            self.store.add(ended.finished(self.activity.sessions))
        if call.known:
            self.recorder.used(call, now)

    # What is asked for.

    async def page(self, asked: paging.Asked) -> Any:  # noqa: ANN401 -- JSON
        """Return finished requests, from the store if there is one."""
        has_capture = self.captures.numbers().__contains__
        if self.store.path is None:
            return paging.page_of(self.activity, asked, has_capture)
        from proxy.history import inquiry

        stored = await self.store.read(lambda file: inquiry.page_in(file, asked, has_capture))
        return stored or paging.page_of(self.activity, asked, has_capture)

    async def stats(self, models: frozenset[str]) -> Any:  # noqa: ANN401 -- JSON
        """Return what finished requests come to, from the store if there is one."""
        stored = None
        if self.store.path is not None:
            from proxy.history import inquiry

            stored = await self.store.read(lambda file: inquiry.stats_in(file, models))
        kept = (one for one in self.activity if not models or one.model in models)
        return stored or paging.stats_of(kept)

    def happened(self, since: float, until: float) -> Row:
        """Return what happened within these times, as pages are told of it."""
        self.recorder.end_forgotten()
        rows: Row = {"now": time.time(), "since": since, "until": until}
        return (
            rows
            | self.timeline.between(since, until)
            | {"memory": self.memory.between(since, until)}
        )

    async def requests_between(self, since: float, until: float) -> list[Finished]:
        """Return the requests that came within these times, in their order."""
        asked = paging.Asked(since=since, until=until)
        stored = None
        if self.store.path is not None:
            from proxy.history import inquiry

            stored = await self.store.read(lambda file: inquiry.requests_in(file, asked))
        return stored or [one for one in self.activity if asked.fits(one)]

    async def memory_now(self) -> Row | None:
        """Return who holds what; of several that ask within half a second the first looks."""
        latest, now = self.memory.latest, time.time()
        if latest is not None and now - latest["at"] < SOON:
            return latest
        return await self._look_at_memory(now)

    def samples_after(self, after: float) -> Row:
        """Return what the machine did since a moment, as llama-swap tells of it."""
        self._is_sampling = True
        self.stir()
        kinds = {"sys_stats": self.system, "gpu_stats": self.gpus}
        text = rfc3339(after)
        return {
            name: [one for one in rows if one["timestamp"] > text] for name, rows in kinds.items()
        }

    async def hardware(self) -> Row:
        """Return what the machine is."""
        return await beside(_describe, None, OF_DRIVER)

    # What goes on.

    async def run(self) -> None:
        """Write, sample and look, for as long as the daemon runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.store.run)
            nursery.start_soon(self._sample_now_and_then)

    async def end(self) -> None:
        """Keep what goes on at the daemon's end as ended then."""
        self.recorder.close()
        await self.store.write_last()

    async def _sample_now_and_then(self) -> None:
        while True:
            with trio.move_on_after(self._pause()):
                await self._stirred.wait()
            self._stirred = trio.Event()
            await self._look()

    def _pause(self) -> float:
        """Return the seconds until the machine, or memory, is looked at."""
        now, due = trio.current_time(), inf
        if self.every and self._is_sampling:
            due = self._sampled_at + self.every
        if self.watches():
            due = min(due, self._looked_at + (SOON if self._has_moved else WHILE_WATCHED))
        return max(0.0, due - now)

    @property
    def every(self) -> float:
        """The seconds between samples; 0 is no sampling."""
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
        """Whether to look who holds what: a look at all processes holds up streams for 20 ms."""
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
        except Exception as error:  # whatever a kernel or a driver hides: only a sample is missing
            log.debug(f"The machine could not be sampled: {error!r}")
            return
        self.system.append(system)
        self.gpus.extend(gpus)
        while len(self.system) > most:
            self.system.popleft()
        while len(self.gpus) > most * max(1, len(gpus)):
            self.gpus.popleft()


def _sample(at: float) -> tuple[Row, list[Row]]:
    """Look at the machine; what that needs is loaded here, in a thread."""
    from proxy.history.machine import sample, sample_gpus

    readings = look(())
    return sample(at), sample_gpus(at, readings) if readings else []


def _describe(_: None) -> Row:
    from proxy.history.machine import describe

    return describe(look(()))
