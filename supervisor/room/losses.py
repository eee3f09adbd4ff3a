"""What it costs to move a model: seconds for those who wait now or want it later. Pure.

Owns the price of a sleep and of a stop. `victims` chooses who pays it, for a decision of
`scheduling.bymemory`.
"""

from __future__ import annotations

from supervisor.states.snapshot import Costs, Snapshot
from supervisor.states.table import State, Wish

SOMETHING = 0.001  # seconds; a model whose move costs nothing would be moved for nothing
OF_ONE_IN_USE = 60.0  # seconds assumed until a model's requests end, where no limit is set
OF_ONE_THAT_COMES = 1000.0  # seconds: a model that starts or wakes for a request is moved last
USUAL = Costs(start=30.0, stop=1.0, sleep=1.0, wake=3.0)


def losses_of(
    model: Snapshot, is_awake: bool, idle: float, max_wait: float, usual: Costs
) -> tuple[float, float]:
    """Return the seconds that a model's sleep and its stop are expected to cost.

    Args:
        model: the model.
        is_awake: whether it is awake then; if it sleeps, only its stop costs anything.
        idle: seconds since it was last used.
        max_wait: seconds that a model in use keeps others waiting at most; 0 is no limit.
        usual: what a step usually takes, for steps that were never measured of this model.
    """
    start, stop, sleep, wake = _steps(model.costs, usual)
    soon = 1.0 if model.in_flight or model.waiting else model.habits.likely_soon(idle)
    if not is_awake:
        return SOMETHING, SOMETHING + stop + soon * max(0.0, start - wake)
    held_up = _held_up(model, max_wait)
    return held_up + sleep + soon * wake, held_up + stop + soon * start


def _held_up(model: Snapshot, max_wait: float) -> float:
    """Return the seconds that a newcomer waits until a model can be moved."""
    if model.wish is Wish.SERVE and model.state is not State.READY and model.waiting:
        return OF_ONE_THAT_COMES
    if model.in_flight or model.waiting:
        return SOMETHING + (max_wait or OF_ONE_IN_USE)
    return SOMETHING


def _steps(costs: Costs, usual: Costs) -> tuple[float, float, float, float]:
    """Return what start, stop, sleep and wake take: the model's, else the fleet's, else usual."""
    return (
        _first(costs.start, usual.start, USUAL.start),
        _first(costs.stop, usual.stop, USUAL.stop),
        _first(costs.sleep, usual.sleep, USUAL.sleep),
        _first(costs.wake, usual.wake, USUAL.wake),
    )


def _first(*known: float | None) -> float:
    return next(value for value in known if value is not None)
