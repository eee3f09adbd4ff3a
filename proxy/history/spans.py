"""The past of the models: spans of one state, decisions, and when requests waited and ran.

Owns the format of these rows, which pages get too, and how many are kept: those of a day, up to a
limit. `recorder` makes the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, Literal

import attrs

DAY = 86400.0  # seconds
MOST_OF_A_KIND = 20_000
BETWEEN_LOOKS = 256  # rows, after which old ones are dropped
LITTLE_APART = 0.25  # seconds between two uses that count as one

Row = dict[str, Any]
Kind = Literal["spans", "decisions", "busy", "waits"]
KINDS: tuple[Kind, ...] = ("spans", "decisions", "busy", "waits")


@attrs.frozen(kw_only=True)
class Bounds:
    """The limits on what a store keeps.

    Attributes:
        megabytes: of the file; 0 is no limit.
        days: that the file goes back; 0 is no limit.
    """

    megabytes: int = 0
    days: int = 0


@attrs.define(eq=False)
class Rows:
    """Rows of one kind in the order in which they were added. Old rows are dropped.

    Attributes:
        begin: the key of a row's beginning, in seconds since 1970.
        end: the key of its end. A row without an end has not ended.
    """

    begin: str = "begin"
    end: str = "end"
    _rows: list[Row] = attrs.field(factory=list, init=False)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, row: Row) -> None:
        """Keep a row. Now and then, drop rows beyond a day or beyond `MOST_OF_A_KIND`."""
        self._rows.append(row)
        if len(self._rows) % BETWEEN_LOOKS == 0:
            oldest = row[self.begin] - DAY
            self._rows = [one for one in self._rows if self._ends(one) >= oldest][-MOST_OF_A_KIND:]

    def last(self, most: int) -> list[Row]:
        """Return the newest rows, the oldest of them first."""
        return self._rows[-most:]

    def begin_with(self, rows: Iterable[Row]) -> None:
        """Put older rows before all others."""
        self._rows = [*rows, *self._rows][-MOST_OF_A_KIND:]

    def between(self, since: float, until: float) -> list[Row]:
        """Return the rows that overlap these times."""
        return [row for row in self._rows if row[self.begin] <= until and self._ends(row) >= since]

    def _ends(self, row: Row) -> float:
        end = row[self.end]
        return inf if end is None else float(end)


@attrs.define(eq=False)
class Timeline:
    """All rows of the last day.

    Attributes:
        on_change: called with each row that is new or has changed, if given.
        on_kept: called with each row that changes no more, if there is a store.
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
        """Return a new number for a row."""
        self._number += 1
        return self._number

    def recall(self, rows: Mapping[Kind, list[Row]], number: int) -> None:
        """Take rows of an earlier daemon. New numbers begin after the given one."""
        for kind, found in rows.items():
            self.of(kind).begin_with(found)
        self._number = max(self._number, number)

    def add(self, kind: Kind, row: Row) -> Row:
        """Keep a row under a new number, and tell that it is new."""
        row = {"id": self.next_number(), **row}
        self.of(kind).add(row)
        self.changed(kind, row)
        return row

    def changed(self, kind: Kind, row: Row) -> None:
        """Tell that a row has changed."""
        if self.on_change is not None:
            self.on_change(kind, row)

    def keep(self, kind: Kind, row: Row) -> None:
        """Give a row that changes no more to the store."""
        if self.on_kept is not None:
            self.on_kept(kind, row)

    def used(self, kind: Literal["busy", "waits"], model: str, begin: float, end: float) -> None:
        """Note when a request waited for a model or ran. Times that touch become one row."""
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
        """Yield the rows of uses that may still grow."""
        yield from ((kind, row) for (kind, _), row in self._last_use.items())

    def between(self, since: float, until: float) -> dict[Kind, list[Row]]:
        """Return all rows that overlap these times, by kind."""
        return {kind: self.of(kind).between(since, until) for kind in KINDS}
