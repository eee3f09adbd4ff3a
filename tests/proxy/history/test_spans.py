"""The rows of the last day: in order, bounded, and merged where they touch."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.history import spans
from proxy.history.spans import DAY, Rows, Timeline


def row(begin: float, end: float | None) -> dict[str, Any]:
    return {"begin": begin, "end": end}


def test_rows_are_found_by_any_part_of_them() -> None:
    """A row that begins before the window or has no end yet is also found."""
    rows = Rows()
    for one in (row(0, 10), row(5, None), row(20, 30), row(40, 50)):
        rows.add(one)
    assert rows.between(8, 25) == [row(0, 10), row(5, None), row(20, 30)]
    assert rows.between(100, 200) == [row(5, None)]


def test_what_is_older_than_a_day_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without an end stay; each kind has a maximum number of rows."""
    monkeypatch.setattr(spans, "MOST_OF_A_KIND", 600)
    rows = Rows()
    rows.add(row(0, None))
    for _ in range(254):
        rows.add(row(0, 1))
    rows.add(row(2 * DAY, 2 * DAY + 1))
    assert list(rows) == [row(0, None), row(2 * DAY, 2 * DAY + 1)]
    for _ in range(2000):
        rows.add(row(2 * DAY, 2 * DAY))
    assert len(list(rows)) <= 600 + spans.BETWEEN_LOOKS


def test_uses_that_touch_are_one() -> None:
    """Requests to the same model merge if they overlap or follow each other closely."""
    timeline = Timeline()
    timeline.used("busy", "a", 10, 12)
    timeline.used("busy", "a", 12.1, 14)
    timeline.used("busy", "a", 9, 13)
    timeline.used("busy", "b", 10, 11)
    timeline.used("busy", "a", 20, 21)
    found = [(one["model"], one["begin"], one["end"], one["count"]) for one in timeline.busy]
    assert found == [("a", 9, 14, 3), ("b", 10, 11, 1), ("a", 20, 21, 1)]


def test_changes_are_told_and_numbers_are_given_once() -> None:
    """Numbers stay unique after the rows of an earlier daemon were loaded."""
    told: list[tuple[str, int]] = []
    timeline = Timeline(on_change=lambda kind, one: told.append((kind, one["id"])))
    timeline.recall({"spans": [{"id": 40, **row(0, 1)}]}, 41)
    first = timeline.add("spans", row(2, None))
    timeline.changed("spans", first)
    timeline.add("decisions", {"at": 3})
    assert told == [("spans", 42), ("spans", 42), ("decisions", 43)]
