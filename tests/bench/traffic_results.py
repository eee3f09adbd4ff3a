"""The figures of the load benchmark: their medians over rounds, and how they are shown.

Differences and ratios are taken within a round, since a noisy machine changes from round to round.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from math import isnan, nan

import attrs

MILLI, MICRO, MEBI = 1e3, 1e6, 1 / 2**20


def middle(values: Sequence[float]) -> float:
    """Return the median of those that are known."""
    return statistics.median([value for value in values if not isnan(value)] or [nan])


@attrs.define
class Results:
    """The figures of each load against each target, from each round."""

    targets: list[str]
    _rounds: defaultdict[tuple[str, str], list[dict[str, float]]] = attrs.field(
        factory=lambda: defaultdict(list), init=False
    )

    def add(self, load: str, target: str, figures: dict[str, float]) -> None:
        self._rounds[load, target].append(figures)

    def median(self, load: str, target: str, key: str) -> float:
        return middle(self._values(load, target, key))

    def added(self, load: str, target: str, key: str) -> float:
        """Return how much more it is than without a proxy, in the same round."""
        pairs = zip(self._values(load, target, key), self._values(load, "direct", key), strict=True)
        return middle([value - without for value, without in pairs])

    def ratio(self, load: str, key: str) -> float:
        """Return how many times haproxy's it is for llamadoze, in the same round."""
        values = self._values(load, "llamadoze", key)
        pairs = zip(values, self._values(load, "haproxy", key) or [nan] * len(values), strict=True)
        return middle([value / other for value, other in pairs])

    def _values(self, load: str, target: str, key: str) -> list[float]:
        return [figures[key] for figures in self._rounds[load, target]]

    def errors(self) -> list[str]:
        """Return a line for each load that was not answered as a whole."""
        sums = {
            where: sum(int(figures["errors"]) for figures in some)
            for where, some in self._rounds.items()
        }
        return [
            f"{target}, {load}: {sums[load, target]}" for load, target in sums if sums[load, target]
        ]


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        heading: above it, with the unit.
        load: whose figures they are.
        key: of the figure.
        scale: from seconds or bytes to the unit.
        added: whether the time without a proxy is taken off.
    """

    heading: str
    load: str
    key: str
    scale: float = 1
    added: bool = False

    def cell(self, results: Results, target: str) -> str:
        find = results.added if self.added else results.median
        value = find(self.load, target, self.key) * self.scale
        of_a_proxy = self.added or self.key in ("cpu", "memory")
        if isnan(value) or (of_a_proxy and target == "direct"):
            return "-"
        return f"{value:,.{0 if abs(value) >= 100 else 2}f}"


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; its first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for name, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *right]).rstrip())
