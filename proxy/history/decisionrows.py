"""What the row of a decision tells: who asked, by which rule, and how each model made room.

Owns the form of the row. The recorder decides to which decision a step belongs.
"""

from __future__ import annotations

import attrs

from proxy.history.spans import Row
from supervisor import State
from supervisor.states.causes import Ruling, Victim
from supervisor.states.table import Event

LEFT = (Event.SLEPT, Event.ENDED, Event.GAVE_UP)
"""The events by which a model has made room."""
TOOK = "took"  # seconds until a model had made room; missing until then
TRIED = "tried"  # seconds of a sleep that failed; the model is being stopped


def row_of(ruling: Ruling) -> Row:
    """Return what is told of a new decision."""
    return {
        "model": ruling.model,
        "why": ruling.asker.why.value,
        "request": ruling.asker.request,
        "client": ruling.asker.client,
        "key": ruling.asker.key,
        "waited": round(ruling.waited, 3),
        "waiting": ruling.waiting,
        "rule": ruling.rule,
        "victims": [attrs.asdict(victim) for victim in ruling.victims],
        "gpus": list(ruling.gpus),
    }


def rule_again(decision: Row, ruling: Ruling) -> None:
    """Tell a decision anew, for example with one more victim; keep how the others made room."""
    known = [one for one in decision["victims"] if one.keys() & {TRIED, TOOK}]
    decision |= row_of(ruling)
    by_model = {one["model"]: one for one in (*decision["victims"], *known)}
    decision["victims"] = list(by_model.values())


def note_leaving(decision: Row, span: Row, event: Event, outcome: Row) -> None:
    """Note how a model made room. The time of a failed sleep counts, too.

    Args:
        decision: the decision for which the model makes room.
        span: the span that ends.
        event: ends the span.
        outcome: what the span took and proved.
    """
    if event is Event.STOP and span["state"] == State.FALLING_ASLEEP.value:
        _victim(decision, span)[TRIED] = outcome[TOOK]
    elif event in LEFT:
        victim = _victim(decision, span)
        tried = victim.pop(TRIED, 0.0)
        victim |= outcome | {TOOK: round(outcome[TOOK] + tried, 3)}


def _victim(decision: Row, span: Row) -> Row:
    """Return the row of a model that makes room. A sleeper has none before it is stopped."""
    victims: list[Row] = decision["victims"]
    found = next((one for one in victims if one["model"] == span["model"]), None)
    if found is None:
        found = attrs.asdict(_stopped_sleeper(span))
        victims.append(found)
    return found


def _stopped_sleeper(span: Row) -> Victim:
    return Victim(
        model=span["model"],
        state=State.ASLEEP.value,
        because=span["cause"].get("text", ""),
        to_rest=0.0,
        to_return=0.0,
        idle=0.0,
    )
