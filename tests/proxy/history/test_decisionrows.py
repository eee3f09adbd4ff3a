"""The row of a decision: how each model made room, while the decision may still grow."""

from __future__ import annotations

import attrs

from proxy.history.decisionrows import note_leaving, row_of, rule_again
from proxy.history.spans import Row
from supervisor.states.causes import Asker, Ruling, Victim, Why
from supervisor.states.table import Event

FIRST = Ruling(
    number=1,
    model="b",
    asker=Asker(why=Why.REQUEST),
    waited=0.0,
    waiting=1,
    rule="groups",
    victims=(
        Victim(model="a", state="ready", because="idle", to_rest=1.0, to_return=2.0, idle=3.0),
    ),
)


def span(model: str, state: str) -> Row:
    return {"model": model, "state": state, "cause": {"text": "it slept"}}


def outcome(took: float) -> Row:
    return {"took": took, "proved": None}


def test_what_is_known_of_a_victim_outlives_a_growing_decision() -> None:
    """The decision is told again while the first victim is stopped after a failed sleep."""
    decision = row_of(FIRST)
    note_leaving(decision, span("a", "sleepPending"), Event.STOP, outcome(60.0))
    more = attrs.evolve(FIRST.victims[0], model="c")
    rule_again(decision, attrs.evolve(FIRST, victims=(*FIRST.victims, more)))
    note_leaving(decision, span("a", "stopping"), Event.ENDED, outcome(2.5))
    assert [one["model"] for one in decision["victims"]] == ["a", "c"]
    assert decision["victims"][0] == attrs.asdict(FIRST.victims[0]) | outcome(62.5)
    assert "took" not in decision["victims"][1]


def test_a_stopped_sleeper_stays_in_a_decision_that_is_told_again() -> None:
    """The scheduler does not know of sleepers that are stopped for a second try."""
    decision = row_of(FIRST)
    note_leaving(decision, span("c", "stopping"), Event.ENDED, outcome(0.5))
    rule_again(decision, FIRST)
    found = {one["model"]: one for one in decision["victims"]}
    assert list(found) == ["a", "c"]
    assert (found["c"]["state"], found["c"]["because"]) == ("asleep", "it slept")


def test_a_sleeper_that_wakes_has_not_made_room() -> None:
    """Only the end of a sleep or of a process makes room."""
    decision = row_of(FIRST)
    note_leaving(decision, span("a", "asleep"), Event.WAKE, outcome(9.0))
    assert decision == row_of(FIRST)
