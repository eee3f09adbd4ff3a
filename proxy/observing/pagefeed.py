"""Events for llamadoze's own page: gathered, and sent at most four times a second.

Owns the kinds of events that llama-swap does not have, and the limit on log output. `events` owns
the listeners and the format of messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import trio

from proxy.history.keeping import History
from proxy.history.spans import Kind
from proxy.history.spans import Row as Happened
from proxy.naming.resolving import Resolver
from proxy.observing.modelrows import model_row, queue_rows

PAGE_KINDS = ("daemon", "models", "queue", "timeline", "memory", "log")
BETWEEN = 0.25  # seconds
MOST_LOGGED = 64 * 1024  # bytes of one source's log in that time; the newest are sent

Row = dict[str, Any]


@attrs.define(eq=False)
class _Logged:
    """What one source has logged since the last message."""

    data: bytearray = attrs.field(factory=bytearray, init=False)
    dropped: int = attrs.field(default=0, init=False)

    def add(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > MOST_LOGGED:
            beyond = len(self.data) - MOST_LOGGED
            end = self.data.find(b"\n", beyond) + 1 or beyond  # whole lines
            self.dropped += end
            del self.data[:end]


@attrs.define(eq=False)
class PageFeed:
    """Gathers what has changed.

    Attributes:
        resolver: knows the models and their names.
        history: the past that is kept.
        facts: returns the facts about the daemon as a whole.
        tell: sends an event to the listeners of its kind.
        is_wanted: whether a kind has listeners.
    """

    resolver: Resolver
    history: History
    facts: Callable[[], Row]
    tell: Callable[[str, object], None] = attrs.field(default=lambda _, __: None, init=False)
    is_wanted: Callable[[str], bool] = attrs.field(default=lambda _: False, init=False)
    _touched: set[str] = attrs.field(factory=set, init=False)
    _happened: dict[tuple[Kind, int], Happened] = attrs.field(factory=dict, init=False)
    _logged: dict[str, _Logged] = attrs.field(factory=dict, init=False)
    _said: Row = attrs.field(factory=dict, init=False)
    _queue: list[Row] = attrs.field(factory=list, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)

    def firsts(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """Yield the first message of each kind."""
        yield "daemon", self._daemon
        yield "models", self._all_models
        yield "queue", self._whole_queue
        yield "timeline", self._open_spans
        yield "log", lambda: {"now": time.time(), "lines": []}

    def _whole_queue(self) -> Row:
        self._queue = queue_rows(self.resolver)
        self._stirred.set()  # the page must also hear when the queue empties
        return {"now": time.time(), "waiting": self._queue}

    def _daemon(self) -> Row:
        return {"now": time.time(), **self.facts()}

    def _all_models(self) -> Row:
        rows = [self._model(name) for name in sorted(self.resolver.config.models)]
        return {"now": time.time(), "operation": "snapshot", "models": rows}

    def _model(self, name: str) -> Row:
        row = model_row(self.resolver, name)
        return {**row, "for": self.history.recorder.brought_up_for(name)}

    def _open_spans(self) -> Row:
        spans = [row for row in self.history.timeline.spans if row["end"] is None]
        return {"now": time.time(), "operation": "snapshot", "spans": spans}

    # What has changed.

    def touch(self, model: str) -> None:
        """Note that something about a model has changed."""
        if self.is_wanted("models") or self.is_wanted("queue"):
            self._touched.add(model)
            self._stirred.set()

    def happened(self, kind: Kind, row: Happened) -> None:
        """Note a row of the timeline that is new or has changed."""
        if self.is_wanted("timeline"):
            self._happened[kind, row["id"]] = row
            self._stirred.set()

    def hear(self, source: str, data: bytes) -> None:
        """Note what a source has logged."""
        self._logged.setdefault(source, _Logged()).add(data)
        self._stirred.set()

    def reloaded(self) -> None:
        """Tell of all models again."""
        self.tell("models", self._all_models())
        self.stir()

    def stir(self) -> None:
        """Note that something about the daemon as a whole has changed."""
        self._stirred.set()

    async def run(self) -> None:
        """Tell what has changed, for as long as the daemon runs."""
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            self._flush()
            await trio.sleep(BETWEEN)
            for row in self._queue:  # no event says when a request gets its turn
                self.touch(row["model"])

    def _flush(self) -> None:
        now = time.time()
        if (said := self.facts()) != self._said:
            self._said = said
            self.tell("daemon", {"now": now, **said})
        self._tell_models(now)
        if happened := self._take_happened():
            self.tell("timeline", {"now": now, "operation": "upsert", **happened})
        logged, self._logged = self._logged, {}
        if logged:
            lines = [_as_row(source, one) for source, one in logged.items()]
            self.tell("log", {"now": now, "lines": lines})

    def _tell_models(self, now: float) -> None:
        touched, self._touched = self._touched, set()
        known = self.resolver.config.models
        if touched and self.is_wanted("models"):
            rows = [self._model(name) for name in sorted(touched) if name in known]
            gone = [name for name in sorted(touched) if name not in known]
            change = {"operation": "upsert", "models": rows, "gone": gone}
            self.tell("models", {"now": now, **change})
        if touched or self._queue:
            before, self._queue = self._queue, queue_rows(self.resolver)
            if before or self._queue:
                self.tell("queue", {"now": now, "waiting": self._queue})

    def _take_happened(self) -> dict[str, list[Happened]]:
        found: dict[str, list[Happened]] = {}
        for (kind, _), row in self._happened.items():
            found.setdefault(kind, []).append(row)
        self._happened = {}
        return found


def _as_row(source: str, logged: _Logged) -> Row:
    text = logged.data.decode("utf-8", "replace")
    return {"source": source, "data": text, "dropped": logged.dropped}
