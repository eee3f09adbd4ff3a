"""What is learned of one model over all its lives, and the plain data that it is kept as. Pure.

Owns the form. `succession.knowledge` keeps the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from supervisor.states.footprint import UNMEASURED, Footprint
from supervisor.states.habits import NO_HABITS, REMEMBERED, Habits
from supervisor.states.snapshot import MEASURED, UNKNOWN, Costs

MOST_GPUS = 64
MOST_SECONDS = 1e9
_AMOUNTS = ("host", "host_asleep", "growth", "lives", "peak_host")
_LISTS = ("gpus", "gpus_asleep", "peak_gpus")


@attrs.frozen
class Learned:
    """What was learned of a model.

    Attributes:
        footprint: its memory.
        costs: how long its steps take.
        habits: when it is likely wanted again.
    """

    footprint: Footprint = UNMEASURED
    costs: Costs = UNKNOWN
    habits: Habits = NO_HABITS

    def as_data(self) -> dict[str, Any]:
        """Return what was learned as data that JSON can hold."""
        return {
            "footprint": attrs.asdict(self.footprint),
            "costs": attrs.asdict(self.costs),
            "gaps": list(self.habits.gaps),
        }


NOTHING_LEARNED = Learned()


def learned_in(data: object) -> Learned:
    """Return what plain data says; anything else in it is left out."""
    if not isinstance(data, dict):
        return NOTHING_LEARNED
    gaps = data.get("gaps")
    known = [float(gap) for gap in gaps if _is_seconds(gap)] if isinstance(gaps, list) else []
    return Learned(
        _footprint(data.get("footprint")),
        _costs(data.get("costs")),
        Habits(tuple(known[-REMEMBERED:])),
    )


def _footprint(data: object) -> Footprint:
    if not isinstance(data, dict):
        return UNMEASURED
    facts: dict[str, Any] = {name: data[name] for name in _AMOUNTS if _is_amount(data.get(name))}
    for name in _LISTS:
        amounts = data.get(name)
        if (
            isinstance(amounts, list)
            and len(amounts) <= MOST_GPUS
            and all(map(_is_amount, amounts))
        ):
            facts[name] = tuple(amounts[:MOST_GPUS])
    return Footprint(**facts)


def _costs(data: object) -> Costs:
    if not isinstance(data, dict):
        return UNKNOWN
    facts: dict[str, Any] = {
        name: float(data[name]) for name in MEASURED.values() if _is_seconds(data.get(name))
    }
    of_each = data.get("counts")
    counts: Mapping[str, Any] = of_each if isinstance(of_each, dict) else {}
    counted = {name: counts[name] for name in facts if _is_amount(counts.get(name))}
    saved = float(data["saved"]) if _is_seconds(data.get("saved")) else 0.0
    return Costs(**facts, counts={**dict.fromkeys(facts, 1), **counted}, saved=saved)


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _is_seconds(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < MOST_SECONDS  # False for NaN, too
