"""The figures of the load benchmark, round by round, and their medians.

Differences and ratios are taken within a round, because a noisy machine changes between rounds.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import Any

import attrs

from tests.bench.figures import number

MILLI, MICRO, MEBI = 1e3, 1e6, 1 / 2**20
DIRECT, HAPROXY, OURS = "direct", "haproxy", "llamadoze"
Figures = dict[str, float]


def middle(values: Sequence[float]) -> float:
    """Return the median of the known values."""
    return statistics.median([value for value in values if not isnan(value)] or [nan])


@attrs.define
class Results:
    """The figures of each load against each target, from each round."""

    targets: list[str]
    _rounds: defaultdict[tuple[str, str], list[Figures]] = attrs.field(
        factory=lambda: defaultdict(list), init=False
    )

    @property
    def loads(self) -> list[str]:
        return list(dict.fromkeys(load for load, _ in self._rounds))

    def add(self, load: str, target: str, figures: Figures) -> None:
        self._rounds[load, target].append(figures)

    def median(self, load: str, target: str, key: str) -> float:
        return middle(self._values(load, target, key))

    def added(self, load: str, target: str, key: str) -> float:
        """Return how much a target adds to the figure without a proxy in the same round."""
        return middle(self._pairs(load, target, DIRECT, key, lambda own, other: own - other))

    def ratio(self, load: str, key: str, target: str = OURS, other: str = HAPROXY) -> float:
        """Return the target's figure divided by the other's in the same round."""
        return middle(self._pairs(load, target, other, key, lambda own, other: own / other))

    def _pairs(
        self, load: str, target: str, other: str, key: str, join: Callable[[float, float], float]
    ) -> list[float]:
        own, others = self._values(load, target, key), self._values(load, other, key)
        return [join(*pair) for pair in zip(own, others, strict=True)] if others else []

    def _values(self, load: str, target: str, key: str) -> list[float]:
        return [figures[key] for figures in self._rounds.get((load, target), ())]

    def errors(self) -> list[str]:
        """Return a line for each load that was not answered as a whole."""
        sums = {
            where: sum(int(figures["errors"]) for figures in some)
            for where, some in self._rounds.items()
        }
        return [
            f"{target}, {load}: {sums[load, target]}" for load, target in sums if sums[load, target]
        ]

    def written(self) -> dict[str, Any]:
        """Return everything for the file: the rounds, the medians, the ratios of CPU."""
        return {
            "targets": self.targets,
            "rounds": self._by_load(lambda load, name: self._rounds[load, name]),
            "medians": self._by_load(self._medians),
            "cpu over haproxy's": self._by_load(lambda load, name: self.ratio(load, "cpu", name)),
        }

    def _by_load(self, find: Callable[[str, str], object]) -> dict[str, dict[str, object]]:
        return {load: {name: find(load, name) for name in self.targets} for load in self.loads}

    def _medians(self, load: str, target: str) -> Figures:
        keys = self._rounds[load, target][0]
        return {key: self.median(load, target, key) for key in keys}

    @classmethod
    def read(cls, written: dict[str, Any]) -> Results:
        """Read what `written` returns."""
        results = cls(written["targets"])
        for load, found in written["rounds"].items():
            for target, some in found.items():
                for figures in some:
                    results.add(load, target, known(figures))
        return results


def known(figures: dict[str, float | None]) -> Figures:
    return {key: nan if value is None else value for key, value in figures.items()}


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        heading: of the column, with the unit.
        load: that the figures are of.
        key: of the figure.
        scale: from seconds or bytes to the unit.
        of: the ``whole`` figure, what is ``added`` to the figure without a proxy, or how many
            ``times`` haproxy's figure it is.
    """

    heading: str
    load: str
    key: str
    scale: float = 1
    of: str = "whole"

    def cell(self, results: Results, target: str) -> str:
        if target == DIRECT and (self.of != "whole" or self.key in ("cpu", "memory")):
            return "-"
        return number(self._value(results, target) * self.scale)

    def _value(self, results: Results, target: str) -> float:
        if self.of == "times":
            return results.ratio(self.load, self.key, target)
        find = results.added if self.of == "added" else results.median
        return find(self.load, target, self.key)
