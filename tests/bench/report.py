"""All that a run of the benchmark has measured, as it is written to a file and printed.

The file also has the figures of each round, so that anybody can check a median.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import attrs

from tests.bench import machine as here
from tests.bench import traffic_tables
from tests.bench.figures import Figure, figures_table
from tests.bench.forwarding import Forwarding
from tests.bench.traffic_results import Results

WITH_GOALS = ("instructions", "starts")
"""The parts whose goals are in the table of goals; the others have goals in their own tables."""
TITLES = {
    "instructions": "Instructions of its own",
    "starts": "Start, check, memory, rest",
    "swaps": "Starts and swaps of models",
    "decisions": "Decisions",
}


@attrs.define
class Report:
    """All measurements so far.

    Attributes:
        machine: on which the benchmark ran.
        interpreter: that ran the benchmark.
        versions: of packages and programs that took part.
        forwarding: none if it was not measured.
        parts: the figures of each other part.
        seconds: that each part took.
    """

    machine: dict[str, Any] = attrs.field(factory=here.machine)
    interpreter: dict[str, Any] = attrs.field(factory=here.interpreter)
    versions: dict[str, str] = attrs.field(factory=here.versions)
    forwarding: Forwarding | None = None
    parts: dict[str, list[Figure]] = attrs.field(factory=dict)
    seconds: dict[str, float] = attrs.field(factory=dict)

    @property
    def where(self) -> str:
        return here.told(self.machine, self.interpreter)

    def goals(self) -> list[Figure]:
        """Return all figures that have a goal."""
        found = list(traffic_tables.goals(self.forwarding.results)) if self.forwarding else []
        others = (figure for part in WITH_GOALS for figure in self.parts.get(part, ()))
        return found + [figure for figure in others if figure.goal]

    def written(self) -> dict[str, Any]:
        """Return everything for the file."""
        whole: dict[str, Any] = {
            "machine": self.machine,
            "interpreter": self.interpreter,
            "versions": self.versions,
            "seconds": self.seconds,
            "goals": [figure.written() for figure in self.goals()],
            "parts": {name: [one.written() for one in some] for name, some in self.parts.items()},
        }
        if self.forwarding:
            whole["forwarding"] = self.forwarding.results.written()
            whole["forwarding"]["stolen"] = self.forwarding.stolen
        return whole

    @classmethod
    def read(cls, written: dict[str, Any]) -> Report:
        """Read what `written` returns."""
        parts = {name: [*map(Figure.read, some)] for name, some in written["parts"].items()}
        facts = {key: written[key] for key in ("machine", "interpreter", "versions", "seconds")}
        forwarding = None
        if found := written.get("forwarding"):
            forwarding = Forwarding(Results.read(found), found["stolen"])
        return cls(**facts, forwarding=forwarding, parts=parts)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(without_nan(self.written()), indent=1) + "\n")

    def tables(self) -> Iterator[str]:
        """Yield everything as tables of text."""
        if self.forwarding:
            yield from traffic_tables.tables(self.forwarding.results)
            yield from remarks(self.forwarding)
        for name, figures in self.parts.items():
            yield figures_table(TITLES[name], figures)
        yield figures_table("Goals of llamadoze", self.goals())
        yield "Time: " + ", ".join(durations(self.seconds.items()))


def remarks(forwarding: Forwarding) -> Iterator[str]:
    """Yield what a reader needs to know to trust the tables."""
    errors = forwarding.results.errors() or ["none"]
    yield "\n  ".join(["Not answered as a whole:", *errors])
    yield f"The host took {forwarding.stolen:.0%} of the time that the cores had work."


def durations(seconds: Iterable[tuple[str, float]]) -> list[str]:
    known = dict(seconds)
    return [f"{name} {took:.0f} s" for name, took in {**known, "all": sum(known.values())}.items()]


def without_nan(value: Any) -> Any:
    """Return the same value with None for `nan`, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and isnan(value) else value
