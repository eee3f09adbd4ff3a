"""Requests in virtual time with `use: memory`: what is held, who waits, and what that saves."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.playing.outcome import Arrival, Outcome, Span
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.ledger import amounts_of
from supervisor.room.space import HOST, Space
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.states.footprint import Footprint
from supervisor.states.pins import KEPT
from supervisor.states.snapshot import Need
from supervisor.states.table import State

LONGEST = 5.0
MODELS = "abcde"


def sized(size: int, rest: int | None = None, *, count: int = 1, host: int = 0) -> Need:
    """Return what a model needs of each of its GPUs, and of the host awake and asleep."""
    left = None if rest is None else (rest,) * count
    known = Footprint(gpus=(size,) * count, host=host, gpus_asleep=left, lives=1)
    return Need(gpus=count, known=known)


needs = st.builds(
    lambda size, rest, count, host, left: attrs.evolve(
        sized(size, min(rest, size), count=count, host=host),
        known=attrs.evolve(
            sized(size, min(rest, size), count=count, host=host).known,
            host_asleep=min(left, host),
        ),
    ),
    size=st.integers(1, 14),
    rest=st.integers(0, 2),
    count=st.sampled_from([1, 1, 2]),
    host=st.integers(0, 12),
    left=st.integers(0, 5),
)
unknown = st.just(Need())
models = st.builds(
    Durations,
    start=st.sampled_from([3.0, 10.0, 30.0]),
    stop=st.sampled_from([0.5, 2.0]),
    sleep=st.sampled_from([0.5, 2.0]),
    wake=st.sampled_from([0.5, 3.0]),
    can_sleep=st.booleans(),
    need=st.one_of(needs, needs, needs, unknown),
)
spaces = st.builds(
    lambda gpus, host: Space(whole={f"gpu{n}": size for n, size in enumerate(gpus)} | {HOST: host}),
    gpus=st.lists(st.integers(8, 24), min_size=1, max_size=3),
    host=st.integers(10, 60),
)
arrivals = st.builds(
    Arrival, at=st.floats(0, 200), model=st.sampled_from(MODELS), serve=st.floats(0, LONGEST)
)
fleets = st.fixed_dictionaries(dict.fromkeys(MODELS, models))


def held(
    outcome: Outcome, fleet: Mapping[str, Durations], space: Space
) -> Iterator[tuple[float, float, Mapping[str, int]]]:
    """Yield from when to when a model holds what: awake or moving, and asleep between two spans."""
    for name, durations in fleet.items():
        spans = sorted((s for s in outcome.spans if s.model == name), key=lambda s: s.begin)
        was_asleep = False
        for span, then in zip_longest(spans, spans[1:]):
            awake, _ = amounts_of(durations.need, span.gpus, space)
            rest = left_by(durations.need, span)
            yield span.begin, span.end, rest if was_asleep and leaves(span) else awake
            was_asleep = span.state is State.FALLING_ASLEEP
            if was_asleep:
                yield span.end, then.begin if then else outcome.end, rest


def leaves(span: Span) -> bool:
    return span.state is State.STOPPING


def left_by(need: Need, span: Span) -> dict[str, int]:
    left = dict(zip(span.gpus, need.known.gpus_asleep or (), strict=False))
    return left | {HOST: need.known.host_asleep or 0}


@settings(max_examples=200, deadline=None)
@given(
    trace=st.lists(arrivals, max_size=40),
    fleet=fleets,
    space=spaces,
    max_wait=st.sampled_from([1, 10]),
)
def test_no_more_is_held_than_there_is(
    trace: list[Arrival], fleet: dict[str, Durations], space: Space, max_wait: int
) -> None:
    """At no moment do models hold more of a device than there is; and all requests are served."""
    outcome = Simulation(fleet, space, Patience(max_wait=max_wait)).play(trace)
    assert sum(map(len, outcome.waits.values())) == len(trace)
    spans = list(held(outcome, fleet, space))
    for moment in {begin for begin, _, _ in spans}:
        sums = Counter[str]()
        for begin, end, amounts in spans:
            if begin <= moment < end - 1e-6:
                sums.update(amounts)
        assert all(amount <= space.whole[device] for device, amount in sums.items())
    check_alone(outcome, fleet)


def check_alone(outcome: Outcome, fleet: Mapping[str, Durations]) -> None:
    """Check that no other model was awake on the device of a model of unknown size."""
    for span in outcome.spans:
        if fleet[span.model].need.known.is_known:
            continue
        for other in outcome.spans:
            meets = other.begin < span.end - 1e-6 and span.begin < other.end - 1e-6
            is_awake = not (leaves(other) or leaves(span))
            if other.model != span.model and meets and is_awake:
                assert not set(other.gpus) & set(span.gpus), (span, other)


@settings(max_examples=150, deadline=None)
@given(
    trace=st.lists(arrivals, max_size=60),
    fleet=fleets,
    space=spaces,
    max_wait=st.sampled_from([1, 10]),
    min_active=st.sampled_from([0, 4]),
)
def test_everybody_is_served_within_the_bound_of_fixed_rules(
    trace: list[Arrival],
    fleet: dict[str, Durations],
    space: Space,
    max_wait: int,
    min_active: int,
) -> None:
    """The bound is the longest wait plus, for each other model, its steps, batch and kept time."""
    patience = Patience(max_wait=max_wait, min_active=min_active)
    outcome = Simulation(fleet, space, patience).play(trace)
    kept = LONGEST + max(max_wait, min_active)
    turns = [
        max(times.start, times.wake) + max(times.stop, times.sleep) + kept
        for times in fleet.values()
    ]
    bound = max_wait + sum(turns) + max(turns)
    assert all(wait <= bound for waits in outcome.waits.values() for wait in waits)


@settings(max_examples=100, deadline=None)
@given(trace=st.lists(arrivals, max_size=40), fleet=fleets, space=spaces)
def test_nobody_pinned_is_moved(
    trace: list[Arrival], fleet: dict[str, Durations], space: Space
) -> None:
    """The pinned model starts once and stays; each request is served or refused."""
    fleet["a"] = attrs.evolve(fleet["a"], pin=KEPT)
    outcome = Simulation(fleet, space, Patience()).play([Arrival(0, "a", 1), *trace])
    states = [span.state for span in outcome.spans if span.model == "a"]
    assert states == [State.STARTING, State.READY] or states == [State.STARTING]
    assert sum(map(len, outcome.waits.values())) + outcome.refused == len(trace) + 1


def test_two_that_fit_beside_each_other_are_never_swapped() -> None:
    """On one GPU or on one each, the models start once and are never swapped."""
    trace = [Arrival(turn * 3, "ab"[turn % 2], 2) for turn in range(200)]
    fleet = {name: Durations(need=sized(10)) for name in "ab"}
    for gpus in ((24,), (12, 12)):
        space = Space(whole={f"gpu{n}": size for n, size in enumerate(gpus)} | {HOST: 100})
        outcome = Simulation(fleet, space, Patience()).play(trace)
        assert outcome.activations == 2
        assert {span.state for span in outcome.spans} == {State.STARTING, State.READY}


@settings(max_examples=150, deadline=None)
@given(
    trace=st.lists(arrivals, max_size=60),
    fleet=st.fixed_dictionaries(
        {
            name: st.builds(
                Durations,
                start=st.sampled_from([3.0, 30.0]),
                can_sleep=st.booleans(),
                need=st.builds(sized, st.integers(13, 24), st.just(0)),
            )
            for name in MODELS
        }
    ),
)
def test_where_nothing_fits_beside_anything_it_is_one_at_a_time(
    trace: list[Arrival], fleet: dict[str, Durations]
) -> None:
    """For each request, memory then decides the same as the fixed rule."""
    space = Space(whole={"gpu0": 24, HOST: 1000})
    found = Simulation(fleet, space, Patience()).play(trace)
    single = Simulation(fleet, one_at_a_time, Patience()).play(trace)
    assert (found.waits, found.activations) == (single.waits, single.activations)


@settings(max_examples=150, deadline=None)
@given(
    trace=st.lists(arrivals, max_size=60),
    fleet=st.fixed_dictionaries(
        {name: st.builds(Durations, need=st.builds(sized, st.integers(0, 4))) for name in MODELS}
    ),
)
def test_where_all_fit_each_model_starts_once(
    trace: list[Arrival], fleet: dict[str, Durations]
) -> None:
    """So there are never more swaps than with one at a time."""
    outcome = Simulation(fleet, Space(whole={"gpu0": 20, HOST: 9}), Patience()).play(trace)
    assert outcome.activations == len({arrival.model for arrival in trace})


@settings(max_examples=300, deadline=None)
@given(
    fleet=st.fixed_dictionaries(
        {
            name: st.builds(
                Durations,
                start=st.sampled_from([3.0, 10.0, 30.0]),
                wake=st.sampled_from([0.5, 3.0]),
                can_sleep=st.booleans(),
                need=st.builds(sized, st.integers(1, 24), st.integers(0, 1)),
            )
            for name in MODELS
        }
    ),
    size=st.integers(8, 24),
    asked=st.lists(st.tuples(st.sampled_from(MODELS), st.floats(45, 300)), max_size=60),
)
def test_where_requests_do_not_pile_up_there_are_never_more_swaps_than_with_one_at_a_time(
    fleet: dict[str, Durations], size: int, asked: list[tuple[str, float]]
) -> None:
    """A model then leaves only for a request, not for a turn."""
    now, trace = 0.0, []
    for name, gap in asked:
        now += gap
        trace.append(Arrival(now, name, 2))
    memory = Simulation(fleet, Space(whole={"gpu0": size, HOST: 99}), Patience()).play(trace)
    single = Simulation(fleet, one_at_a_time, Patience()).play(trace)
    assert memory.activations <= single.activations


def random_play(seed: int) -> tuple[dict[str, Durations], Space, list[Arrival]]:
    """Return models of random sizes, a machine, and requests; sleep leaves nothing."""
    choose = random.Random(seed)
    sizes = [choose.randint(8, 24) for _ in range(choose.randint(1, 3))]
    space = Space(whole={f"gpu{n}": size for n, size in enumerate(sizes)} | {HOST: 1000})
    fleet = {
        name: Durations(
            start=choose.choice([3, 10, 30]),
            wake=choose.choice([0.5, 3]),
            can_sleep=choose.random() < 0.6,
            need=sized(choose.randint(1, 14)),
        )
        for name in MODELS
    }
    trace = [
        Arrival(choose.uniform(0, 200), choose.choice(MODELS), choose.uniform(0, LONGEST))
        for _ in range(40)
    ]
    return fleet, space, trace


def test_on_the_whole_memory_swaps_and_waits_less_than_one_at_a_time() -> None:
    """All plays together show it clearly, and a single play is seldom worse in both.

    A single play may be worse in one: a request that is let in sooner may not be let in together
    with others.
    """
    swaps, waits, worse = Counter[str](), Counter[str](), 0
    for seed in range(150):
        fleet, space, trace = random_play(seed)
        memory = Simulation(fleet, space, Patience()).play(trace)
        single = Simulation(fleet, one_at_a_time, Patience()).play(trace)
        swaps.update(memory=memory.activations, single=single.activations)
        both = [sum(map(sum, one.waits.values())) for one in (memory, single)]
        waits.update(memory=round(both[0]), single=round(both[1]))
        worse += memory.activations > single.activations and both[0] > both[1]
    assert swaps["memory"] < 0.75 * swaps["single"]
    assert waits["memory"] < 0.5 * waits["single"]
    assert worse <= 2


def test_a_play_of_many_models_is_quick() -> None:
    """The play has 200 models on four GPUs and 5000 requests; the bound is generous."""
    choose = random.Random(1)
    fleet = {
        f"m{n}": Durations(start=size, need=sized(size, 0, host=2))
        for n, size in enumerate(choose.choices([5, 8, 14, 20, 30], k=200))
    }
    weights = [1 / (place + 1) for place in range(200)]
    names = choose.choices(list(fleet), weights, k=5000)
    trace = [Arrival(2.0 * n, name, choose.expovariate(0.3)) for n, name in enumerate(names)]
    space = Space(whole={f"gpu{n}": 80 for n in range(4)} | {HOST: 2000})
    began = time.process_time()
    outcome = Simulation(fleet, space, Patience()).play(trace)
    assert time.process_time() - began < 60
    assert sum(map(len, outcome.waits.values())) == 5000
    assert outcome.activations < 5000


@pytest.mark.parametrize("first_come", [False, True])
def test_a_sleeper_keeps_its_gpus_and_one_that_ends_gives_them_up(first_come: bool) -> None:
    """A sleeper wakes where it slept; a model that has ended starts where there is room."""
    fleet = {
        "a": Durations(start=5, need=sized(20, 2)),
        "b": Durations(start=5, need=sized(22, 0), can_sleep=False),
    }
    space = Space(whole={"gpu0": 24, "gpu1": 10, HOST: 100})
    trace = [Arrival(at, name, 1) for at, name in ((0, "a"), (20, "b"), (60, "a"))]
    outcome = Simulation(fleet, space, Patience(), first_come=first_come).play(trace)
    places = {span.gpus for span in outcome.spans if span.model == "a"}
    assert places == {("gpu0",)}
    assert State.WAKING in {span.state for span in outcome.spans if span.model == "a"}
    assert outcome.activations == 3
