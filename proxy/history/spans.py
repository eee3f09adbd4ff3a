"""What happened to the models: spans of one state, decisions, and when requests waited and ran.

Owns the form of each, which is what pages are told, and what is kept of all: a day, bounded in
number. How they come about is `recorder`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, Literal

import attrs

DAY = 86400.0  # seconds
MOST_OF_A_KIND = 20_000
BETWEEN_LOOKS = 256  # rows, after which old ones are looked for
LITTLE_APART = 0.25  # seconds between two uses that count as one

Row = dict[str, Any]
Kind = Literal["spans", "decisions", "busy", "waits"]
KINDS: tuple[Kind, ...] = ("spans", "decisions", "busy", "waits")


@attrs.frozen(kw_only=True)
class Bounds:
    """How much is kept beyond the daemon's end.

    Attributes:
        megabytes: of the file; 0 is no limit.
        days: that it goes back; 0 is no limit.
    """

    megabytes: int = 0
    days: int = 0


@attrs.define(eq=False)
class Rows:
    """Rows of one kind in the order of their coming; old ones are forgotten.

    Attributes:
        begin: the key of a row's beginning, in seconds since 1970.
        end: the key of its end; a row without one goes on.
    """

    begin: str = "begin"
    end: str = "end"
    _rows: list[Row] = attrs.field(factory=list, init=False)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, row: Row) -> None:
        """Keep one more; those beyond a day or the most of a kind go, some at a time."""
        self._rows.append(row)
        if len(self._rows) % BETWEEN_LOOKS == 0:
            oldest = row[self.begin] - DAY
            self._rows = [one for one in self._rows if self._ends(one) >= oldest][-MOST_OF_A_KIND:]

    def last(self, most: int) -> list[Row]:
        """Return the newest, in the order of their coming."""
        return self._rows[-most:]

    def begin_with(self, rows: Iterable[Row]) -> None:
        """Put older rows before all others."""
        self._rows = [*rows, *self._rows][-MOST_OF_A_KIND:]

    def between(self, since: float, until: float) -> list[Row]:
        """Return those that have something of themselves within these times."""
        return [row for row in self._rows if row[self.begin] <= until and self._ends(row) >= since]

    def _ends(self, row: Row) -> float:
        end = row[self.end]
        return inf if end is None else float(end)


@attrs.define(eq=False)
class Timeline:
    """All that is known of the last day.

    Attributes:
        on_change: called with each row that is new or has changed, while anybody wants that.
        on_kept: called with each row that changes no more, where it is kept for longer.
    """

    on_change: Callable[[Kind, Row], None] | None = None
    on_kept: Callable[[Kind, Row], None] | None = None
    spans: Rows = attrs.field(factory=Rows, init=False)
    decisions: Rows = attrs.field(factory=lambda: Rows("at", "at"), init=False)
    busy: Rows = attrs.field(factory=Rows, init=False)
    waits: Rows = attrs.field(factory=Rows, init=False)
    _number: int = attrs.field(default=0, init=False)
    _last_use: dict[tuple[Kind, str], Row] = attrs.field(factory=dict, init=False)

    def of(self, kind: Kind) -> Rows:
        """Return all rows of a kind."""
        rows: Rows = getattr(self, kind)
        return rows

    def next_number(self) -> int:
        """Return a number that no row has."""
        self._number += 1
        return self._number

    def recall(self, rows: Mapping[Kind, list[Row]], number: int) -> None:
        """Take rows that an earlier daemon has kept; the next number follows one that is given."""
        for kind, found in rows.items():
            self.of(kind).begin_with(found)
        self._number = max(self._number, number)

    def add(self, kind: Kind, row: Row) -> Row:
        """Keep a row, with a number of its own, and tell of it."""
        row = {"id": self.next_number(), **row}
        self.of(kind).add(row)
        self.changed(kind, row)
        return row

    def changed(self, kind: Kind, row: Row) -> None:
        """Tell that a row has changed."""
        if self.on_change is not None:
            self.on_change(kind, row)

    def keep(self, kind: Kind, row: Row) -> None:
        """Keep a row for longer: it changes no more."""
        if self.on_kept is not None:
            self.on_kept(kind, row)

    def used(self, kind: Literal["busy", "waits"], model: str, begin: float, end: float) -> None:
        """Note that a request waited for a model, or ran on it; what touches is one row."""
        last = self._last_use.get((kind, model))
        if last is not None and begin <= last["end"] + LITTLE_APART and end >= last["begin"]:
            last["begin"] = min(last["begin"], begin)
            last["end"] = max(last["end"], end)
            last["count"] += 1
            self.changed(kind, last)
            return
        if last is not None:
            self.keep(kind, last)
        row = {"model": model, "begin": begin, "end": end, "count": 1}
        self._last_use[kind, model] = self.add(kind, row)

    def open_uses(self) -> Iterator[tuple[Kind, Row]]:
        """Yield the rows of uses that may grow yet."""
        yield from ((kind, row) for (kind, _), row in self._last_use.items())

    def between(self, since: float, until: float) -> dict[Kind, list[Row]]:
        """Return all rows that have something of themselves within these times, by kind."""
        return {kind: self.of(kind).between(since, until) for kind in KINDS}
