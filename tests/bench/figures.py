"""One figure of the benchmark: its name, its value and its goal; and tables of text.

The report writes the figures to its file in this form, and reads them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

import attrs


@attrs.frozen
class Figure:
    """A measured figure.

    Attributes:
        what: its name, in words.
        value: ``nan`` if it could not be measured here.
        unit: of the value and the goal.
        goal: such as ``<= 5``, in this unit; empty without a goal.
        each: the values of the rounds that the value was made from.
    """

    what: str
    value: float
    unit: str = ""
    goal: str = ""
    each: Sequence[float] = ()

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; none without a goal or without a known value."""
        if not self.goal or isnan(self.value):
            return None
        relation, limit = self.goal.split()
        return self.value < float(limit) or (relation == "<=" and self.value == float(limit))

    def written(self) -> dict[str, Any]:
        """Return the figure for the file; JSON has no `nan`."""
        value = None if isnan(self.value) else self.value
        each = list(self.each)
        return {**attrs.asdict(self), "value": value, "each": each, "reached": self.reached}

    @classmethod
    def read(cls, written: dict[str, Any]) -> Figure:
        """Read what `written` returns."""
        known = {key: value for key, value in written.items() if key != "reached"}
        return cls(**{**known, "value": float("nan") if known["value"] is None else known["value"]})

    def row(self) -> list[str]:
        """Return the figure as a row of a table."""
        said = {True: "reached", False: "missed", None: ""}[self.reached]
        wanted = f"{self.goal} {self.unit}".strip() if self.goal else ""
        return [self.what, f"{number(self.value)} {self.unit}".strip(), wanted, said]


def number(value: float) -> str:
    """Write a number with about three digits."""
    if isnan(value):
        return "-"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or not size else 3
    return f"{value:,.{digits}f}"


def figures_table(title: str, figures: Iterable[Figure]) -> str:
    return table(title, [["", "measured", "wanted", ""], *(figure.row() for figure in figures)])


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table with its title; its first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([title, *(_line(row, widths) for row in rows)])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *cells = row
    right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
    return "  ".join([name.ljust(widths[0]), *right]).rstrip()
