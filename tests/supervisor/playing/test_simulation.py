"""Requests in virtual time: what is true of every trace, and what the scheduler is worth."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.playing.outcome import Arrival, Outcome
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import MakeRoom, one_at_a_time
from supervisor.states.table import State
from tests.supervisor.scheduling.test_placement import rules
from tests.supervisor.scheduling.test_play import PLACEMENTS

LONGEST = 5.0
TIMES = {
    "a": Durations(start=7, sleep=1, wake=1),
    "b": Durations(start=20, stop=2, can_sleep=False),
    "c": Durations(start=3, sleep=0.5, wake=0.5, priority=1),
    "d": Durations(start=0, stop=0, sleep=0, wake=0),
}
arrivals = st.builds(
    Arrival,
    at=st.floats(0, 200),
    model=st.sampled_from(sorted(TIMES)),
    serve=st.floats(0, LONGEST),
)


@settings(max_examples=150, deadline=None)
@given(
    trace=st.lists(arrivals, max_size=60),
    placement=st.sampled_from(sorted(PLACEMENTS)),
    max_wait=st.sampled_from([1, 10]),
    min_active=st.sampled_from([0, 4]),
)
def test_everybody_is_served_within_a_bounded_wait(
    trace: list[Arrival], placement: str, max_wait: int, min_active: int
) -> None:
    """The bound is the longest wait plus, for each other model, its steps, batch and kept time."""
    make_room = rules(PLACEMENTS[placement])
    patience = Patience(max_wait=max_wait, min_active=min_active)
    outcome = Simulation(TIMES, make_room, patience).play(trace)
    assert sum(map(len, outcome.waits.values())) == len(trace)
    kept = LONGEST + max(max_wait, min_active)
    turns = [
        max(times.start, times.wake) + max(times.stop, times.sleep) + kept
        for times in TIMES.values()
    ]
    bound = max_wait + sum(turns) + max(turns)  # one more model that was on its way already
    assert all(wait <= bound for waits in outcome.waits.values() for wait in waits)
    check_company(outcome, make_room)


def check_company(outcome: Outcome, make_room: MakeRoom) -> None:
    """Check that no model started or woke beside a model that had to leave for it."""
    for span in outcome.spans:
        if span.state not in (State.STARTING, State.WAKING):
            continue
        beside = {
            other.model
            for other in outcome.spans
            if other.begin < span.begin < other.end and other.model != span.model
        }
        assert not make_room(span.model, frozenset(beside)), (span, beside)


@settings(deadline=None)
@given(trace=st.lists(arrivals, max_size=40))
def test_first_come_first_served_keeps_the_order(trace: list[Arrival]) -> None:
    """With `first_come`, no request begins before one that came earlier."""
    outcome = Simulation(TIMES, one_at_a_time, Patience(), first_come=True).play(trace)
    came = sorted(trace, key=lambda arrival: arrival.at)
    seen = dict.fromkeys(TIMES, 0)
    begun = []
    for arrival in came:
        begun.append(arrival.at + outcome.waits[arrival.model][seen[arrival.model]])
        seen[arrival.model] += 1
    assert all(one <= other + 1e-6 for one, other in pairwise(begun))


def test_one_request_beside_an_endless_stream() -> None:
    """The request waits for the longest wait, the last request of the stream, and the swap."""
    stream = [Arrival(second / 2, "a", 1) for second in range(200)]
    times = {"a": Durations(start=1, sleep=2, wake=2), "b": Durations(start=3)}
    outcome = Simulation(times, one_at_a_time, Patience(max_wait=10)).play(
        [*stream, Arrival(20, "b", 1)]
    )
    assert outcome.waits["b"] == [pytest.approx(10 + 1 + 2 + 3, abs=0.5)]
    endless = Simulation(times, one_at_a_time, Patience(max_wait=0)).play(
        [*stream, Arrival(20, "b", 1)]
    )
    assert endless.waits["b"][0] > 80


def test_a_turn_that_has_come_is_not_taken_by_those_who_make_room() -> None:
    """In sets of a matrix that are no pairs, a model that made room must not come back first."""
    matrix = "matrix: {sets: {one: a&b&c, two: b&c&d, three: a&d}, evict_costs: {d: 13, c: 10}}"
    trace = [
        *(Arrival(turn * 0.3, "b", 0.1) for turn in range(1000)),
        *(Arrival(turn * 0.5, "c", 4) for turn in range(600)),
        Arrival(0, "d", 0.1),
        Arrival(30, "a", 1),
    ]
    times = {name: Durations(start=3, can_sleep=False) for name in "abcd"}
    outcome = Simulation(times, rules(matrix), Patience(max_wait=10)).play(trace)
    assert outcome.waits["a"][0] < 20
    assert outcome.activations < 10


def test_who_waits_for_long_does_not_keep_out_who_fits_beside() -> None:
    """A long request is in the way of one model, but not of another."""
    groups = "groups: {g: {swap: false, members: [a, b]}}"
    trace = [Arrival(0, "a", 600), Arrival(20, "c", 1), Arrival(21, "b", 1)]
    times = {name: Durations(start=5) for name in "abc"}
    outcome = Simulation(times, rules(groups), Patience()).play(trace)
    assert outcome.waits["b"] == [5]
    assert outcome.waits["c"][0] > 500


def test_two_models_in_steady_use_share_the_time() -> None:
    """Each model may also be used by one client, whose requests have gaps between them."""
    trace = [
        Arrival(turn / 2 + place / 4, name, 0.4)
        for turn in range(1200)
        for place, name in enumerate("ab")
    ]
    times = {name: Durations(start=5, stop=1, can_sleep=False) for name in "ab"}
    outcome = Simulation(times, one_at_a_time, Patience()).play(trace)
    assert outcome.changing < outcome.end / 2
    assert max(max(waits) for waits in outcome.waits.values()) < 30


def zipf(requests: int, models: int, rate: float) -> list[Arrival]:
    """Return requests at random times; a few models get most of them."""
    choose = random.Random(1)
    weights = [1 / (place + 1) for place in range(models)]
    names = choose.choices([f"m{place}" for place in range(models)], weights, k=requests)
    now = 0.0
    trace = []
    for name in names:
        now += choose.expovariate(rate)
        trace.append(Arrival(now, name, choose.expovariate(0.5)))
    return trace


def test_fewer_swaps_and_shorter_waits_than_in_the_order_of_coming() -> None:
    """The trace has ten models, and one request a second."""
    trace = zipf(2000, 10, 1)
    times = {arrival.model: Durations(start=10) for arrival in trace}
    fair = Simulation(times, one_at_a_time, Patience()).play(trace)
    strict = Simulation(times, one_at_a_time, Patience(), first_come=True).play(trace)
    assert fair.activations < strict.activations / 3
    longest = [max(max(waits) for waits in one.waits.values()) for one in (fair, strict)]
    assert longest[0] < longest[1] / 10
    assert fair.serving + fair.changing <= fair.end + 1e-6
