"""One figure of the benchmark: what it is, how much, what was wanted; and tables of text.

It is written to the file as it stands here, and read back from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

import attrs


@attrs.frozen
class Figure:
    """What was measured.

    Attributes:
        what: in words.
        value: not a number where it could not be measured here.
        unit: of the value and the goal.
        goal: such as ``<= 5``, in this unit; empty where nothing is wanted.
        each: what each round gave, where the value was made of that.
    """

    what: str
    value: float
    unit: str = ""
    goal: str = ""
    each: Sequence[float] = ()

    @property
    def reached(self) -> bool | None:
        """Whether it is what was wanted; none where nothing was, or nothing is known."""
        if not self.goal or isnan(self.value):
            return None
        relation, limit = self.goal.split()
        return self.value < float(limit) or (relation == "<=" and self.value == float(limit))

    def written(self) -> dict[str, Any]:
        """Return it for the file, which knows no `nan`."""
        value = None if isnan(self.value) else self.value
        each = list(self.each)
        return {**attrs.asdict(self), "value": value, "each": each, "reached": self.reached}

    @classmethod
    def read(cls, written: dict[str, Any]) -> Figure:
        """Read what `written` returns."""
        known = {key: value for key, value in written.items() if key != "reached"}
        return cls(**{**known, "value": float("nan") if known["value"] is None else known["value"]})

    def row(self) -> list[str]:
        """Return it as the row of a table."""
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
