"""Which models make room by memory: who leaves, who stays, and which GPU a model gets."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.room.space import HOST, Space
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Demand, Patience
from supervisor.scheduling.placement import Plan
from supervisor.scheduling.turns import decide
from supervisor.states.footprint import Footprint
from supervisor.states.habits import Habits
from supervisor.states.pins import KEPT
from supervisor.states.snapshot import Costs, Need, Snapshot
from supervisor.states.table import ENDED, HOLDS_MEMORY, State, Wish
from tests.supervisor.scheduling.rooms import (
    AS_WISHED,
    GIB,
    asleep,
    awake_on,
    beyond,
    by_name,
    decided,
    holding_now,
    known,
    machine,
    ready,
    standing,
)

ONE, TWO = machine(24), machine(24, 24)


# No more than there is.


@st.composite
def machines(draw: st.DrawFn) -> Space:
    gpus = draw(st.lists(st.integers(4, 24), max_size=3))
    others = {f"g{n}": draw(st.sampled_from([0, 0, 2, 20])) for n in range(len(gpus))}
    host = draw(st.integers(8, 64))
    return machine(*gpus, host=host, others={**others, HOST: draw(st.sampled_from([0, 0, 4]))})


@st.composite
def footprints(draw: st.DrawFn) -> Footprint:
    if draw(st.integers(0, 4)) == 0:
        return Footprint()
    awake = [draw(st.integers(1, 30)) for _ in range(draw(st.integers(0, 2)))]
    return attrs.evolve(
        known(*awake, host=draw(st.one_of(st.none(), st.integers(0, 20)))),
        gpus_asleep=tuple(draw(st.integers(0, 2)) * GIB for _ in awake),
        host_asleep=draw(st.integers(0, 4)) * GIB,
        is_short=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def models_on(draw: st.DrawFn, space: Space) -> dict[str, Snapshot]:
    """Draw models in any state, whether they fit or not."""
    found = []
    for name in "abcdefg"[: draw(st.integers(1, 7))]:
        footprint, state = draw(footprints()), draw(st.sampled_from(State))
        count = min(draw(st.integers(0, 2)), len(space.gpus))
        if footprint.gpus == () and not footprint.is_short:
            count = 0
        gpus = draw(st.permutations(space.gpus))[:count]
        only = draw(st.sampled_from(["", "", " ".join(gpus)])) if gpus else ""
        on = " ".join(gpus) if state not in ENDED else ""
        one = standing(name, footprint, state, on, count=count, only=only)
        is_used = state is State.READY and draw(st.booleans())
        found.append(
            attrs.evolve(
                one,
                in_flight=int(is_used),
                can_sleep=draw(st.sampled_from([True, True, False])),
                pin=KEPT if draw(st.integers(0, 6)) == 0 else None,
                wish=draw(st.sampled_from([one.wish, AS_WISHED.get(state, Wish.STOP), Wish.SERVE])),
            )
        )
    return by_name(found)


@given(data=st.data(), max_wait=st.sampled_from([0, 5, 100]))
@settings(max_examples=500, deadline=None)
def test_nobody_is_called_for_whom_there_is_no_room(data: st.DataObject, max_wait: int) -> None:
    """All models that hold memory at that moment count, and what sleepers have left."""
    space = data.draw(machines())
    models = data.draw(models_on(space))
    wanted = data.draw(st.lists(st.sampled_from(sorted(models)), unique=True, min_size=1))
    demands = [Demand(model=name, since=float(place)) for place, name in enumerate(wanted)]
    models |= {n: attrs.evolve(models[n], waiting=1) for n in wanted}
    room = ByMemory(models, space, 50, max_wait)
    decision = decide(demands, models, room, Patience(max_wait=max_wait), 50)
    called = {n for n, wish in decision.wishes.items() if wish is Wish.SERVE}
    came = {n for n in called if models[n].state not in HOLDS_MEMORY or models[n].is_ending}
    seats = {n: decision.gpus.get(n, models[n].gpus) for n in called}
    after = {n: holding_now(one, space) for n, one in models.items() if n not in came}
    before = beyond([*after.values()], space)
    after |= {n: awake_on(models[n], seats[n], space) for n in came}
    for name in came:
        mine = after[name]
        devices = {d for d, amount in mine.amounts.items() if amount}
        assert not devices & beyond([*after.values()], space), (name, before)
        for other, its in after.items():
            is_awake = other in came or models[other].state in HOLDS_MEMORY
            if other == name or not is_awake:
                continue
            assert not its.whole & mine.whole
            # A model of unknown size gets what a kept model leaves of a device.
            assert models[name].pin or not its.whole & devices
            assert models[other].pin or not any(its.amounts.get(one) for one in mine.whole)
        assert_seat_is_right(models[name], seats[name], space)
    for name, wish in decision.wishes.items():
        if wish is not Wish.SERVE:
            assert models[name].pin is None or name in wanted
            assert not models[name].in_flight


def assert_seat_is_right(model: Snapshot, gpus: tuple[str, ...], space: Space) -> None:
    assert len(set(gpus)) == len(gpus)
    assert set(gpus) <= set(space.gpus)
    if model.state is State.ASLEEP and model.gpus:
        assert gpus == model.gpus
    elif model.need.only:
        assert gpus == model.need.only
    elif space.gpus and model.need.gpus and model.need.known.gpus != ():
        assert len(gpus) == min(model.need.gpus, len(space.gpus))


# Who leaves.


def test_models_that_fit_run_together() -> None:
    """No model is asked to leave, and the new model is called at once."""
    decision = decided(ONE, ready("a", known(10)), standing("b", known(14)), wanted="b")
    assert decision.wishes == {"b": Wish.SERVE}
    assert decision.gpus == {"b": ("g0",)}
    assert decision.causes == {}


def test_one_too_many_lets_one_sleep_first() -> None:
    """The new model is called only when the other one has given its memory back."""
    a, b = ready("a", known(10, rest=1)), standing("b", known(15))
    decision = decided(ONE, a, b, wanted="b")
    assert decision.wishes == {"a": Wish.SLEEP}
    assert decision.causes == {"a": "b"}
    moving = attrs.evolve(a, state=State.FALLING_ASLEEP, wish=Wish.SLEEP)
    assert decided(ONE, moving, b, wanted="b").wishes == {}
    gone = attrs.evolve(a, state=State.ASLEEP, wish=Wish.SLEEP)
    too_large = decided(ONE, gone, attrs.evolve(b, need=Need(known=known(23.5))), wanted="b")
    assert too_large.wishes == {"a": Wish.STOP}
    assert decided(ONE, gone, b, wanted="b").wishes == {"b": Wish.SERVE}


def test_a_sleeper_is_stopped_only_where_the_sleep_of_others_does_not_suffice() -> None:
    """To stop a sleeper is expensive, because it would have to start anew."""
    sleeper, awake = asleep("s", known(10, rest=4)), ready("a", known(10, rest=1))
    some = decided(ONE, sleeper, awake, standing("b", known(15)), wanted="b")
    assert some.wishes == {"a": Wish.SLEEP}
    more = decided(ONE, sleeper, awake, standing("b", known(21)), wanted="b")
    assert more.wishes == {"a": Wish.SLEEP, "s": Wish.STOP}


def test_who_is_in_use_is_moved_last() -> None:
    """An idle model sleeps first, however much its sleep costs; and no request is cut."""
    slow = Costs(sleep=5, wake=4)
    used = ready("u", known(10), in_flight=1)
    idle = ready("i", known(10), costs=slow, habits=Habits((5, 5)))
    decision = decided(ONE, used, idle, standing("b", known(10)), wanted="b")
    assert decision.wishes == {"i": Wish.SLEEP}
    alone = decided(ONE, used, standing("b", known(20)), wanted="b")
    assert alone.wishes == {}
    assert alone.closed == {"u"}


def test_who_comes_up_for_somebody_is_not_turned_back_while_others_could_leave() -> None:
    """This includes a model that was called and has not moved yet."""
    idle = ready("i", known(10), costs=Costs(sleep=8, wake=8))
    for state, on in ((State.STARTING, "g0"), (State.WAKING, "g0"), (State.STOPPED, "g0")):
        coming = standing("c", known(10), state, on, wish=Wish.SERVE, waiting=1)
        decision = decided(ONE, idle, coming, standing("b", known(10)), wanted="cb", since=990)
        assert decision.wishes.get("c") is not Wish.STOP
        assert decision.wishes["i"] is Wish.SLEEP


def test_nobody_who_is_pinned_is_moved() -> None:
    """A pinned model stays awake or asleep, and the wanted model gets no turn."""
    pinned = ready("a", known(10), pin=KEPT)
    assert decided(ONE, pinned, standing("b", known(15)), wanted="b").wishes == {}
    sleeping = asleep("a", known(10, rest=4), pin=KEPT)
    assert decided(ONE, sleeping, standing("b", known(21)), wanted="b").wishes == {}
    assert decided(ONE, sleeping, standing("b", known(20)), wanted="b").wishes == {"b": Wish.SERVE}


# What is not known yet.


def test_a_model_that_is_not_known_gets_a_device_of_its_own() -> None:
    """It gets the emptiest device; models that are awake leave it, and sleepers may stay."""
    there = ready("a", known(2), on="g0"), asleep("s", known(8, rest=1), on="g1")
    decision = decided(TWO, *there, standing("b"), wanted="b")
    assert decision.wishes == {"b": Wish.SERVE}
    assert decision.gpus == {"b": ("g1",)}
    beside = decided(ONE, ready("a", known(2)), standing("b"), wanted="b")
    assert beside.wishes == {"a": Wish.SLEEP}


def test_a_model_that_is_not_known_comes_up_beside_pinned_ones() -> None:
    """It gets what pinned models leave; other models leave for it all the same."""
    there = ready("k", known(3), pin=KEPT), ready("a", known(8))
    assert decided(ONE, *there, standing("b"), wanted="b").wishes == {"a": Wish.SLEEP}
    alone = decided(ONE, there[0], standing("b"), wanted="b")
    assert alone.wishes == {"b": Wish.SERVE}


def test_a_gpu_that_strangers_have_filled_is_not_given_to_who_wants_all_of_one() -> None:
    """An idle model leaves the other GPU instead."""
    space = machine(24, 24, others={"g0": 20})
    decision = decided(space, ready("a", known(8), on="g1"), standing("b"), wanted="b")
    assert decision.wishes == {"a": Wish.SLEEP}


def test_nobody_joins_a_model_while_it_is_awake_for_the_first_time() -> None:
    """The new model must leave first, or the wanted model goes to another GPU."""
    new = ready("n", on="g0")
    assert decided(ONE, new, standing("b", known(1)), wanted="b").wishes == {"n": Wish.SLEEP}
    decision = decided(TWO, new, standing("b", known(1)), wanted="b")
    assert (decision.wishes, decision.gpus) == ({"b": Wish.SERVE}, {"b": ("g1",)})
    seen = ready("n", attrs.evolve(known(), gpus=None, host=None, lives=0, peak_gpus=(GIB,)))
    assert decided(ONE, seen, standing("b", known(1)), wanted="b").wishes == {"n": Wish.SLEEP}


def test_two_that_are_not_known_get_a_device_each() -> None:
    """One decision may call both, each on its own GPU."""
    decision = decided(TWO, standing("a"), standing("b"), wanted="ab")
    assert decision.wishes == {"a": Wish.SERVE, "b": Wish.SERVE}
    assert sorted(decision.gpus.values()) == [("g0",), ("g1",)]


def test_a_start_that_lacked_memory_gets_all_there_is() -> None:
    """Sleepers are stopped for it, and models that are awake leave its device."""
    short = standing("b", attrs.evolve(known(4), is_short=True))
    there = ready("a", known(2)), asleep("s", known(8, rest=1))
    decision = decided(ONE, *there, short, wanted="b")
    assert decision.wishes == {"a": Wish.SLEEP, "s": Wish.STOP}


def test_without_a_gpu_the_host_is_the_device() -> None:
    """An unknown model gets all of the host; known models share it."""
    host = machine(host=16)
    first = decided(host, ready("a", known(host=4), on=""), standing("b"), wanted="b")
    assert first.wishes == {"a": Wish.SLEEP}
    one, two = ready("a", known(host=10), on=""), standing("b", known(host=6))
    assert decided(host, one, two, wanted="b").wishes == {"b": Wish.SERVE}
    assert decided(host, one, two, wanted="b").gpus == {}
    larger = standing("b", known(host=7))
    assert decided(host, one, larger, wanted="b").wishes == {"a": Wish.SLEEP}


def test_a_model_that_uses_no_gpu_takes_none_of_one() -> None:
    """It runs beside a model that has a whole GPU, as long as the host has room."""
    cpu = standing("c", known(host=8))
    beside = decided(ONE, ready("n"), cpu, wanted="c")
    assert (beside.wishes, beside.gpus) == ({"c": Wish.SERVE}, {})
    crowded = machine(24, host=10)
    host_user = ready("h", known(2, host=6))
    assert decided(crowded, host_user, cpu, wanted="c").wishes == {"h": Wish.SLEEP}
    said = standing("z", count=0)
    assert decided(ONE, ready("n"), said, wanted="z").wishes == {"z": Wish.SERVE}


def test_a_guess_that_is_larger_than_a_device_takes_all_of_it() -> None:
    """It starts when all others have left, and is not refused forever."""
    large = standing("b", known(80))
    assert decided(ONE, large, wanted="b").wishes == {"b": Wish.SERVE}
    beside = decided(ONE, ready("a", known(1)), large, wanted="b")
    assert beside.wishes == {"a": Wish.SLEEP}


# Which GPU.


def test_the_gpu_is_taken_that_fits_best() -> None:
    """So the larger gap is left for a model that needs it."""
    there = ready("a", known(10), on="g0"), ready("c", known(18), on="g1")
    decision = decided(TWO, *there, standing("b", known(5)), wanted="b")
    assert decision.gpus == {"b": ("g1",)}


def test_a_gpu_where_nobody_has_to_leave_goes_before_one_that_fits_better() -> None:
    """A GPU without a model that must leave is taken, however much room that wastes."""
    there = (ready("a", known(20), on="g0"),)
    decision = decided(machine(24, 80), *there, standing("b", known(10)), wanted="b")
    assert (decision.wishes, decision.gpus) == ({"b": Wish.SERVE}, {"b": ("g1",)})


def test_a_gpu_is_left_to_its_sleepers_where_another_is_free() -> None:
    """Otherwise the two would make each other leave forever; this includes unknown models."""
    sleeper = asleep("s", known(20, rest=1), on="g0")
    for one in (standing("b", known(20)), standing("b")):
        assert decided(TWO, sleeper, one, wanted="b").gpus == {"b": ("g1",)}


def test_the_gpu_is_taken_where_least_is_lost() -> None:
    """The model on the chosen GPU is idle, and the model on the other GPU is in use."""
    there = ready("a", known(20), on="g0", in_flight=1), ready("c", known(20), on="g1")
    decision = decided(TWO, *there, standing("b", known(10)), wanted="b")
    assert decision.wishes == {"c": Wish.SLEEP}


def test_a_sleeper_wakes_on_its_own_gpu() -> None:
    """The model on that GPU leaves, although another GPU is free."""
    sleeper, other = asleep("s", known(20, rest=1), on="g0"), ready("a", known(10), on="g0")
    decision = decided(TWO, sleeper, other, wanted="s")
    assert decision.wishes == {"a": Wish.SLEEP}


def test_a_sleeper_moves_where_pinned_ones_hold_its_gpu() -> None:
    """The sleeper is stopped, and then starts on another GPU."""
    sleeper = asleep("s", known(20, rest=1), on="g0")
    pinned = ready("a", known(10), on="g0", pin=KEPT)
    assert decided(TWO, sleeper, pinned, wanted="s").wishes == {"s": Wish.STOP}
    assert decided(ONE, sleeper, pinned, wanted="s").wishes == {}
    stopped = standing("s", known(20))
    moved = decided(TWO, stopped, pinned, wanted="s")
    assert (moved.wishes, moved.gpus) == ({"s": Wish.SERVE}, {"s": ("g1",)})


def test_a_model_on_two_gpus_makes_room_on_both() -> None:
    """Each GPU counts by what a model holds there; a model on another GPU stays."""
    three = machine(24, 24, 24)
    there = (
        ready("a", known(10), on="g0"),
        ready("b", known(3), on="g1"),
        ready("c", known(23), on="g2"),
    )
    pair = standing("p", known(20, 20), count=2)
    decision = decided(three, *there, pair, wanted="p")
    assert decision.wishes == {"a": Wish.SLEEP} or decision.wishes == {
        "a": Wish.SLEEP,
        "b": Wish.SLEEP,
    }
    assert "c" not in decision.wishes
    free = decided(three, there[0], pair, wanted="p")
    assert (free.wishes, free.gpus) == ({"p": Wish.SERVE}, {"p": ("g1", "g2")})


def test_a_model_on_more_gpus_than_there_are_gets_all() -> None:
    """If it lacks memory, its own server says so."""
    decision = decided(TWO, standing("p", known(20, 20, 20, 20), count=4), wanted="p")
    assert decision.gpus == {"p": ("g0", "g1")}


def test_a_model_comes_up_on_the_gpus_that_its_file_names_alone() -> None:
    """It gets them in the order of its file, whichever models have to leave."""
    there = (ready("a", known(20), on="g1"),)
    decision = decided(TWO, *there, standing("b", known(10), only="g1"), wanted="b")
    assert decision.wishes == {"a": Wish.SLEEP}
    pair = decided(TWO, standing("b", known(10, 5), only="g1 g0", count=1), wanted="b")
    assert pair.gpus == {"b": ("g1", "g0")}


def test_the_order_of_gpus_is_kept_in_what_is_known() -> None:
    """The first of its GPUs is assumed to hold what the first was seen to hold."""
    uneven = standing("b", known(4, 20), only="g0 g1", count=2)
    beside = decided(TWO, ready("a", known(10), on="g0"), uneven, wanted="b")
    assert beside.wishes == {"b": Wish.SERVE}
    assert decided(TWO, ready("a", known(10), on="g1"), uneven, wanted="b").wishes == {
        "a": Wish.SLEEP
    }


def test_what_strangers_hold_is_not_given_away() -> None:
    """The model gets the other GPU, or is not called."""
    taken = machine(24, 24, others={"g0": 20})
    assert decided(taken, standing("b", known(10)), wanted="b").gpus == {"b": ("g1",)}
    both = machine(24, 24, others={"g0": 20, "g1": 20})
    assert decided(both, standing("b", known(10)), wanted="b").wishes == {}


def test_a_model_whose_server_ends_is_called_when_that_is_over() -> None:
    """Its next server may start on another GPU, while the old one is still on its own."""
    ending = standing("b", known(10), State.STOPPING, "g0", wish=Wish.STOP, leaving=True)
    assert decided(TWO, ending, wanted="b").wishes == {}
    broken_off = standing("b", known(10), State.STARTING, "g0", wish=Wish.STOP, leaving=True)
    assert decided(TWO, broken_off, wanted="b").wishes == {}
    ended = standing("b", known(10), leaving=True)
    assert decided(TWO, ended, wanted="b").wishes == {"b": Wish.SERVE}


# Turns.


def test_who_has_waited_longest_is_not_overtaken_for_its_room() -> None:
    """A small model that came later fits now, but would take room that the large one waits for."""
    used = ready("u", known(10), in_flight=1)
    large, small = standing("l", known(20)), standing("s", known(10))
    decision = decided(ONE, used, large, small, wanted="ls")
    assert decision.wishes == {}
    assert decision.closed == {"u"}
    elsewhere = decided(
        TWO,
        used,
        attrs.evolve(large, need=attrs.evolve(large.need, only=("g0",))),
        small,
        wanted="ls",
    )
    assert (elsewhere.wishes, elsewhere.gpus) == ({"s": Wish.SERVE}, {"s": ("g1",)})


def test_a_higher_priority_goes_first_to_what_both_want() -> None:
    """Before either has waited too long, the model with the higher priority goes first."""
    used = ready("u", known(20))
    models = used, standing("l", known(20)), standing("h", known(20))
    decision = decided(ONE, *models, wanted="lh", since=999, h=1)
    assert decision.causes == {"u": "h"}


def test_without_a_longest_wait_a_model_in_use_is_never_closed() -> None:
    """The wanted model waits until the other is idle; further models leave only then."""
    used = ready("u", known(20), in_flight=1)
    decision = decided(ONE, used, standing("b", known(10)), wanted="bu", max_wait=0)
    assert decision.admit == {"u"}
    assert not decision.closed
    assert not decision.wishes
    idle = attrs.evolve(used, in_flight=0)
    assert decided(ONE, idle, standing("b", known(10)), wanted="b", max_wait=0).wishes == {
        "u": Wish.SLEEP
    }


# How long it takes.


def crowd(gpus: int, per_gpu: int, **more: Any) -> list[Snapshot]:
    """Return models that fill their GPUs, of different sizes and costs."""
    return [
        ready(
            f"m{gpu}-{place:02}",
            known(1 + (place * 7 + gpu) % 3, rest=0.25),
            on=f"g{gpu}",
            costs=Costs(start=20 + place, stop=1, sleep=1 + place % 5, wake=2 + gpu % 3),
            idle_since=float(place * 13 % 50),
            **more,
        )
        for gpu in range(gpus)
        for place in range(per_gpu)
    ]


def seconds_of(space: Space, models: dict[str, Snapshot], name: str) -> float:
    plan = Plan(running=frozenset(models) - {name}, called=frozenset(), claimed=frozenset())
    times = []
    for _ in range(7):
        room = ByMemory(models, space, 100.0)
        began = time.perf_counter()
        assert room.of(name, plan) is not None
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize(("gpus", "per_gpu"), [(8, 8), (1, 64), (1, 38)])
@pytest.mark.parametrize("size", [3, 8, 16])
def test_an_answer_takes_little_time(gpus: int, per_gpu: int, size: float) -> None:
    """The daemon does nothing else meanwhile; a quiet machine needs a fraction of this."""
    models = by_name([*crowd(gpus, per_gpu), standing("new", known(size))])
    held = [sum(one.need.known.gpus or ()) for one in models.values()]
    sizes = [
        sum(h for h, m in zip(held, models.values(), strict=True) if f"g{n}" in m.gpus)
        for n in range(gpus)
    ]
    space = machine(*(one / GIB + 0.5 for one in sizes))
    assert seconds_of(space, models, "new") < 0.02


def test_what_sleep_leaves_is_taken_to_grow_as_it_did() -> None:
    """A sleeper that has left more each time is assumed to leave more this time."""
    growing = ready("a", known(10, rest=1, growth=2 * GIB))
    assert decided(ONE, growing, standing("b", known(21)), wanted="b").wishes == {"a": Wish.SLEEP}
    assert decided(ONE, growing, standing("b", known(22)), wanted="b").wishes == {"a": Wish.STOP}


def test_a_device_that_is_too_full_is_left_alone_by_who_comes_elsewhere() -> None:
    """Strangers took more of it than was left, which is no reason for a model to sleep."""
    full = machine(24, 24, others={"g1": 20})
    there = ready("a", known(10), on="g1")
    decision = decided(full, there, standing("b", known(10)), wanted="b")
    assert (decision.wishes, decision.gpus) == ({"b": Wish.SERVE}, {"b": ("g0",)})
    busy = ready("c", known(20, rest=1), on="g0")
    assert decided(full, there, busy, standing("b", known(10)), wanted="b").wishes == {
        "c": Wish.SLEEP
    }
    crowded = machine(24, host=10, others={HOST: 8})
    host_user = ready("a", known(10, host=5))
    assert decided(crowded, host_user, standing("b", known(10)), wanted="b").wishes == {
        "b": Wish.SERVE
    }


def test_a_gpu_that_is_gone_is_no_place() -> None:
    """A model that slept there is stopped and starts elsewhere; one awake there blocks nothing."""
    gone = asleep("s", known(20, rest=1), on="g7")
    assert decided(ONE, gone, wanted="s").wishes == {"s": Wish.STOP}
    lost = ready("a", known(20), on="g7")
    assert decided(ONE, lost, standing("b", known(20)), wanted="b").wishes == {"b": Wish.SERVE}


@given(data=st.data())
@settings(max_examples=300)
def test_what_was_asked_before_changes_no_answer(data: st.DataObject) -> None:
    """The running and the fixed models of an earlier question do not matter."""
    space = data.draw(machines())
    models = data.draw(models_on(space))
    subsets = st.sets(st.sampled_from(sorted(models))).map(frozenset)
    room = ByMemory(models, space, 50)
    for _ in range(data.draw(st.integers(1, 6))):
        name, running = data.draw(st.sampled_from(sorted(models))), data.draw(subsets)
        fixed = data.draw(subsets)
        again = ByMemory(models, space, 50).seat(name, running, fixed)
        assert room.seat(name, running, fixed) == again


def test_a_device_without_room_for_anybody_has_one_model_at_a_time() -> None:
    """A whole GPU may be reserved, or the host give no memory: each model then takes all of it."""
    nothing = machine(host=0)
    one, two = ready("a", known(host=4), on=""), standing("b", known(host=4))
    assert decided(nothing, one, two, wanted="b").wishes == {"a": Wish.SLEEP}
    assert decided(nothing, two, wanted="b").wishes == {"b": Wish.SERVE}
    reserved = machine(0)
    there = ready("a", known(4)), standing("b", known(4))
    assert decided(reserved, *there, wanted="b").wishes == {"a": Wish.SLEEP}
