"""When a model will be ready: case by case, and for any models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

import attrs
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from supervisor.scheduling.forecast import Forecast, forecast
from supervisor.scheduling.placement import one_at_a_time
from supervisor.states.pins import KEPT, Pin
from supervisor.states.snapshot import UNKNOWN, Costs, Queue, Snapshot
from supervisor.states.table import HOLDS_MEMORY, State, Wish
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model as written
from tests.supervisor.helpers import supervise, two

MEASURED = {"start": 5, "stop": 4, "sleep": 3, "wake": 2}
COSTS = Costs(start=40.0, stop=4.0, sleep=6.0, wake=8.0, counts=MEASURED)
NAMES = ("a", "b", "c", "d")
NOW = 1000.0


def stand(model: str, state: State, since: float = NOW, **more: object) -> Snapshot:
    """Return a model's snapshot; by default, the model can sleep and is wanted."""
    first = Snapshot(
        model=model, state=state, since=since, wish=Wish.SERVE, can_sleep=True, costs=COSTS
    )
    return attrs.evolve(first, **more)  # type: ignore[arg-type]  # its fields, by name


def told(*models: Snapshot, order: str = "", now: float = NOW, **more: object) -> Forecast | None:
    """Return the forecast for the first of these models; one model runs at a time."""
    known = {one.model: one for one in models}
    return forecast(models[0].model, known, list(order), one_at_a_time, now, **more)  # type: ignore[arg-type]  # as above


def test_a_model_that_serves_is_ready() -> None:
    """It does not matter which others wait, because new requests are let in."""
    other = stand("b", State.STOPPED)
    assert told(stand("a", State.READY), other, order="b") == Forecast(0.0)


@pytest.mark.parametrize(
    ("state", "more", "expected"),
    [
        (State.STARTING, {}, Forecast(30.0, 5)),
        (State.QUEUED, {"queue": Queue("job 1 waits", NOW + 60)}, Forecast(100.0, 5)),
        (State.WAKING, {"since": NOW - 3}, Forecast(5.0, 2)),
        (State.FALLING_ASLEEP, {"since": NOW - 2}, Forecast(12.0, 2)),
        (State.STOPPING, {"since": NOW - 1}, Forecast(43.0, 4)),
        (State.ASLEEP, {}, Forecast(8.0, 2)),
        (State.STOPPED, {}, Forecast(40.0, 5)),
        (State.FAILED, {}, Forecast(40.0, 5)),
        (State.READY, {"wish": Wish.SLEEP}, Forecast(14.0, 2)),
        (State.READY, {"wish": Wish.DRAIN}, Forecast(44.0, 4)),
        (State.WAKING, {"since": NOW - 3, "leaving": True}, Forecast(44.0, 4)),
    ],
)
def test_each_state_has_its_way_up(
    state: State, more: dict[str, object], expected: Forecast
) -> None:
    """It is the rest of the step plus the next steps, and as sure as the least known of them."""
    assert told(stand("a", state, **{"since": NOW - 10, **more})) == expected  # type: ignore[arg-type]  # as above


def test_a_failed_model_is_held_back_first() -> None:
    """The start of a failed model comes after its backoff."""
    assert told(stand("a", State.FAILED), held_back={"a": 7.0}) == Forecast(47.0, 5)


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        (stand("b", State.READY), 6.0 + 8.0),
        (stand("b", State.READY, can_sleep=False), 4.0 + 8.0),
        (stand("b", State.FALLING_ASLEEP, NOW - 5), 1.0 + 8.0),
        (stand("b", State.STOPPING, NOW - 1), 3.0 + 8.0),
        (stand("b", State.WAKING, NOW - 6), 2.0 + 6.0 + 8.0),
        (stand("b", State.STARTING), 4.0 + 8.0),
        (stand("b", State.ASLEEP), 8.0),
    ],
)
def test_who_must_leave_is_waited_for(rival: Snapshot, expected: float) -> None:
    """The other model sleeps if it can, else it ends; if it moves already, the rest counts."""
    found = told(stand("a", State.ASLEEP), rival)
    assert found is not None
    assert found.seconds == expected


def test_who_may_not_be_moved_is_waited_for_until_that_ends() -> None:
    """If the pin never ends, there is no forecast."""
    for until, expected in ((NOW + 9, Forecast(9 + 6 + 8, 2)), (NOW - 9, Forecast(14, 2))):
        kept = stand("b", State.READY, pin=Pin(until=until))
        assert told(stand("a", State.ASLEEP), kept) == expected
    assert told(stand("a", State.ASLEEP), stand("b", State.READY, pin=KEPT)) is None


def test_a_sleeper_whose_room_is_needed_is_stopped() -> None:
    """If memory decides which models run, the sleeper's stop counts."""
    models = {one.model: one for one in (stand("a", State.STOPPED), stand("b", State.ASLEEP))}

    def all_others(wanted: str, _: frozenset[str]) -> frozenset[str]:
        return frozenset(models) - {wanted}

    assert forecast("a", models, [], all_others, NOW) == Forecast(4.0 + 40.0, 4)


def test_all_who_must_leave_do_so_side_by_side() -> None:
    """The longest of their ways out counts."""
    rivals = (stand("b", State.READY), stand("c", State.READY, can_sleep=False))
    assert told(stand("a", State.ASLEEP), *rivals) == Forecast(14.0, 2)


def test_who_waits_before_it_has_its_swap_first() -> None:
    """That model comes and leaves first; a request that came later is not before this one."""
    models = (stand("a", State.ASLEEP), stand("b", State.READY), stand("c", State.STOPPED))
    swaps = 6.0 + 40.0 + 6.0 + 8.0
    assert told(*models, order="ca") == Forecast(swaps, 2)
    assert told(*models, order="c") == Forecast(swaps, 2), "it would come last"
    assert told(*models, order="ac") == Forecast(14.0, 2)


def test_who_comes_up_already_is_before_it() -> None:
    """The order does not matter: a start that a request waits for is not broken off."""
    models = (stand("a", State.ASLEEP), stand("b", State.STARTING, NOW - 10))
    assert told(*models, order="ab") == Forecast(30.0 + 6.0 + 8.0, 2)


def test_who_can_run_beside_it_is_not_waited_for() -> None:
    """A model that is held back after a failure is not waited for either."""
    beside = {one.model: one for one in (stand("a", State.ASLEEP), stand("b", State.STOPPED))}

    def none(_: str, __: frozenset[str]) -> frozenset[str]:
        return frozenset()

    assert forecast("a", beside, ["b"], none, NOW) == Forecast(8.0, 2)
    held = told(*beside.values(), order="ba", held_back={"b": 9.0})
    assert held == Forecast(8.0, 2)


def test_a_model_that_is_closed_for_newcomers_comes_back_after_the_others() -> None:
    """The model still serves, but it is the turn of the others."""
    models = (stand("a", State.READY), stand("b", State.STOPPED))
    found = told(*models, order="ba", closed=frozenset("a"))
    assert found == Forecast(6.0 + 40.0 + 6.0 + 8.0, 2)


def test_a_step_that_takes_longer_than_ever_is_never_about_to_end() -> None:
    """At least a tenth of the learned time is left, however long the step takes."""
    late = told(stand("a", State.STARTING, NOW - 3600))
    assert late == Forecast(4.0, 5)


def test_what_was_never_measured_is_not_guessed() -> None:
    """Its own steps, the steps of others and the end of a leftover may all be unknown."""
    unknown = attrs.evolve(COSTS, sleep=None)
    assert told(stand("a", State.STARTING, costs=UNKNOWN)) is None
    assert told(stand("a", State.QUEUED)) is None, "how long the queue is, nobody knows"
    assert told(stand("a", State.ASLEEP), stand("b", State.READY, costs=unknown)) is None
    assert told(stand("a", State.ASLEEP), stand("b", State.STOPPING, left="pid 7")) is None


@pytest.mark.parametrize(
    ("share", "left"), [(0.25, 15.0), (0.5, 5.0), (0.05, 3.0), (0.0, 3.0), (1.0, 0.1)]
)
def test_a_server_that_tells_how_far_it_is_knows_best(share: float, left: float) -> None:
    """Its share and the time so far count; if the share is too small, the learned time counts."""
    found = told(stand("a", State.WAKING, NOW - 5), shares={"a": share})
    assert found is not None
    assert found.seconds == pytest.approx(left)
    assert found.measured == (0 if share > 0.05 else 2)
    never = stand("a", State.WAKING, NOW - 5, costs=UNKNOWN)
    assert (told(never, shares={"a": share}) is None) == (share <= 0.05)


times = st.one_of(st.none(), st.floats(0.01, 500))
costs = st.builds(Costs, start=times, stop=times, sleep=times, wake=times)
known = st.floats(0.01, 500)
known_costs = st.builds(Costs, start=known, stop=known, sleep=known, wake=known)


@st.composite
def standing(draw: st.DrawFn, of: st.SearchStrategy[Costs]) -> dict[str, Snapshot]:
    """Return some models in any states."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    return {
        name: Snapshot(
            model=name,
            state=draw(st.sampled_from(State)),
            wish=draw(st.sampled_from(Wish)),
            since=NOW - draw(st.floats(0, 1000)),
            can_sleep=draw(st.booleans()),
            leaving=draw(st.booleans()),
            costs=draw(of),
            queue=Queue("it waits for its place", NOW + draw(st.floats(0, 1000))),
        )
        for name in names
    }


shares_of = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))
held_of = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 60))


@given(standing(costs), st.permutations(NAMES), shares_of, held_of)
def test_it_is_zero_only_where_the_model_serves(
    models: dict[str, Snapshot],
    order: Sequence[str],
    shares: dict[str, float],
    held_back: dict[str, float],
) -> None:
    """The forecast is never negative or infinite, and never zero for a model that is not ready."""
    line = [name for name in order if name in models]
    for name in models:
        found = forecast(
            *(name, models, line, one_at_a_time, NOW), shares=shares, held_back=held_back
        )
        if found is not None:
            assert isfinite(found.seconds)
            assert (found.seconds == 0) == models[name].serving
            assert found.seconds >= 0


@given(standing(known_costs), st.permutations(NAMES))
def test_what_was_measured_is_foretold(models: dict[str, Snapshot], order: Sequence[str]) -> None:
    """The models may be in any state; each part was measured at least once."""
    line = [name for name in order if name in models]
    for name, one in models.items():
        found = forecast(name, models, line, one_at_a_time, NOW)
        assert found is not None
        assert found.measured == (0 if one.serving else 1)


@given(standing(known_costs), st.permutations(NAMES))
def test_who_waits_behind_more_others_is_not_ready_earlier(
    models: dict[str, Snapshot], order: Sequence[str]
) -> None:
    """With each model that goes first, the wait is as long or longer."""
    name, *others = [one for one in order if one in models]
    behind = [
        forecast(name, models, [*others[:place], name], one_at_a_time, NOW)
        for place in range(len(others) + 1)
    ]
    seconds = [one.seconds for one in behind if one is not None]
    assert len(seconds) == len(behind)
    assert all(b >= a - 1e-6 for a, b in pairwise(seconds))


@given(standing(known_costs), st.permutations(NAMES), st.floats(0, 100))
def test_it_falls_no_faster_than_time_passes(
    models: dict[str, Snapshot], order: Sequence[str], passed: float
) -> None:
    """The forecast also does not grow while nothing else happens."""
    line = [name for name in order if name in models]
    for name in models:
        first = forecast(name, models, line, one_at_a_time, NOW)
        then = forecast(name, models, line, one_at_a_time, NOW + passed)
        assert first is not None
        assert then is not None
        assert first.seconds - passed - 1e-6 <= then.seconds <= first.seconds + 1e-6


@given(standing(known_costs), st.floats(0.06, 1), st.floats(0.06, 1))
def test_the_more_is_done_the_less_is_left(
    models: dict[str, Snapshot], one: float, two: float
) -> None:
    """The server itself says how much of the step under way is done."""
    less, more = sorted((one, two))
    for name, stood in models.items():
        if stood.state in HOLDS_MEMORY and stood.since < NOW:
            first, then = (
                forecast(name, models, [name], one_at_a_time, NOW, shares={name: share})
                for share in (less, more)
            )
            assert first is not None
            assert then is not None
            assert then.seconds <= first.seconds + 1e-6


async def test_a_supervisor_foretells_from_what_it_has_learned(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor must have seen each step first; then it knows the times and what is left."""
    FakePrograms().install(monkeypatch)
    slow = {"cmdSleep": "'sleep 3'", "cmdWake": "'sleep 2'"}
    text = two(written("serve a", **slow), written("serve b", **slow))
    async with supervise(text) as supervisor:
        assert supervisor.ready_in("a") is None
        assert supervisor.ready_in("nobody") is None
        await supervisor.load("a")
        assert supervisor.ready_in("b") is None, "it was never started"
        for name in "baba":
            await supervisor.load(name)
        assert supervisor.ready_in("a") == Forecast(0.0)
        assert supervisor.ready_in("b") == Forecast(5.0, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.load, "b")
            await trio.sleep(4)
            assert supervisor.ready_in("b") == Forecast(1.0, 1), "of the wake one second is left"
        await supervisor.pause()
        assert supervisor.ready_in("b") is None
