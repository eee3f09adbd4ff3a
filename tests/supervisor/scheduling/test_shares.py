"""API keys that compete: each gets turns and places by its share, and no key starves another."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from configschema import parse
from supervisor import QueueFull, Supervisor, TooManyRequests
from supervisor.scheduling.decisions import Demand, Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.scheduling.shares import is_below_part, part_of
from supervisor.scheduling.turns import decide
from supervisor.states.causes import Asker, Why
from supervisor.states.snapshot import Snapshot
from tests.fakes import FakePrograms
from tests.supervisor.helpers import supervise

KEYS = "apiKeys: [{name: batch, key: k1}, {name: mate, key: k2, share: SHARE}, plain]\n"


def config_of(text: str, share: int = 1, models: str = "abc", limit: int = 4) -> str:
    each = ", ".join(
        f"{name}: {{cmd: serve {name}, proxy: 'http://model.test:9', concurrencyLimit: {limit}}}"
        for name in models
    )
    return f"{text}\nmodels: {{{each}}}".replace("SHARE", str(share))


def by(key: str) -> Asker:
    return Asker(why=Why.REQUEST, key=key)


async def use(
    supervisor: Supervisor, model: str, key: str, order: list[str], seconds: float = 1
) -> None:
    async with supervisor.lease(model, by(key)):
        order.append(key)
        await trio.sleep(seconds)


async def press(
    supervisor: Supervisor, key: str, served: Counter[str], until: float, pause: float = 0
) -> None:
    """Send requests again and again, a second each, with a pause after each and after a refusal."""
    while trio.current_time() < until:
        try:
            async with supervisor.lease("a", by(key)):
                await trio.sleep(1)
                served[key] += 1
        except TooManyRequests:
            await trio.sleep(pause or 0.1)
        else:
            await trio.sleep(pause)


@pytest.mark.parametrize(
    ("limit", "weights", "part"),
    [(4, {"a": 1, "b": 1}, 2), (10, {"a": 3, "b": 1}, 7), (1, {"a": 1, "b": 9}, 1), (3, {}, 1)],
)
def test_a_part_is_by_share_and_at_least_one(
    limit: int, weights: dict[str, int], part: int
) -> None:
    """Each case gives the part of key a while key b uses the model, too."""
    assert part_of(limit, "a", ["b", "b"], weights) == part


def test_without_names_nobody_has_a_part() -> None:
    """Then only the limit counts, and the same is true for a key that is alone."""
    assert not is_below_part("", ["", ""], 2, {})
    assert not is_below_part("a", ["a", "a"], 2, {"a": 1})
    assert not is_below_part("a", [], 2, {"a": 1})
    assert is_below_part("a", ["", ""], 2, {"a": 1})


async def test_a_batch_that_fills_a_model_leaves_places_to_a_colleague(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The colleague waits for the next place; beyond its part, the batch is refused meanwhile."""
    order: list[str] = []
    async with supervise(config_of(KEYS)) as supervisor, trio.open_nursery() as nursery:
        async with supervisor.lease("a", by("batch")):
            pass
        for _ in range(4):
            nursery.start_soon(use, supervisor, "a", "batch", order)
        await wait_all_tasks_blocked()
        with pytest.raises(TooManyRequests):
            await use(supervisor, "a", "batch", order)
        for _ in range(2):
            nursery.start_soon(use, supervisor, "a", "mate", order)
        await wait_all_tasks_blocked()
        assert supervisor.servers["a"].usage.in_flight == 4
        with pytest.raises(TooManyRequests):
            await use(supervisor, "a", "batch", order)
        with pytest.raises(TooManyRequests):  # it has its part already
            await use(supervisor, "a", "mate", order)
    assert order == ["batch"] * 4 + ["mate"] * 2


async def test_two_keys_that_press_get_places_by_their_shares(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Both always ask for more than there is, and get three to one."""
    served: Counter[str] = Counter()

    async with supervise(config_of(KEYS, share=3)) as supervisor:
        async with supervisor.lease("a", by("batch")):
            until = trio.current_time() + 200
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(press, supervisor, "batch", served, until)
                nursery.start_soon(press, supervisor, "mate", served, until)
    assert 2.5 < served["mate"] / served["batch"] < 3.5
    assert sum(served.values()) > 750  # of 800: no place is kept empty


async def test_an_idle_key_keeps_no_place_empty(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A batch that is alone has all places, however small its share is."""
    order: list[str] = []
    async with supervise(config_of(KEYS, share=9)) as supervisor, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use, supervisor, "a", "batch", order)
        await trio.sleep(5)
        assert order == ["batch"] * 4


async def test_one_place_goes_from_key_to_key(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """If a model serves one request at a time, the key that asks seldom has the next turn."""
    served: Counter[str] = Counter()

    async with supervise(config_of(KEYS, limit=1)) as supervisor:
        async with supervisor.lease("a", by("batch")):
            until = trio.current_time() + 100
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(press, supervisor, "batch", served, until, 0.05)
            nursery.start_soon(press, supervisor, "mate", served, until, 3)
    assert served["mate"] > 15
    assert sum(served.values()) > 80


async def test_a_model_that_must_make_room_lets_no_newcomer_in(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Requests that wait for a place do not get in either; they have the model's next turn."""
    order: list[str] = []
    served: dict[str, float] = {}

    async def once(supervisor: Supervisor, model: str, key: str) -> None:
        await use(supervisor, model, key, order)
        served[model] = trio.current_time()

    async with supervise(config_of(f"{KEYS}maxWait: 2", share=9)) as supervisor:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "b", "mate", order, 0.5)
            await wait_all_tasks_blocked()
            for _ in range(4):
                nursery.start_soon(use, supervisor, "a", "batch", order, 5)
                await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(use, supervisor, "a", "mate", order, 5)
            await trio.sleep(1)
            nursery.start_soon(once, supervisor, "c", "plain")
            for _ in range(60):
                with trio.move_on_after(0.5), suppress(TooManyRequests):
                    await use(supervisor, "a", "mate", order, 5)
                await trio.sleep(0.1)
                if "c" in served:
                    break
    assert served["c"] - began < 9  # the drain of what runs, after `maxWait`


async def test_a_limit_holds_when_a_reload_takes_the_names_away(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Requests that wait for a place go on waiting for it."""
    order: list[str] = []
    async with supervise(config_of(KEYS, limit=2)) as supervisor, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(use, supervisor, "a", "batch", order, 5)
        await trio.sleep(1)
        nursery.start_soon(use, supervisor, "a", "mate", order, 5)
        await wait_all_tasks_blocked()
        supervisor.reload(parse(config_of("", limit=2)).config)
        await wait_all_tasks_blocked()
        assert supervisor.servers["a"].usage.in_flight == 2
    assert order == ["batch", "batch", "mate"]


async def test_who_waits_for_a_place_takes_none_in_the_queue_for_models(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """``maxQueue`` counts only requests whose model must start or wake."""
    order: list[str] = []
    text = config_of(f"{KEYS}maxQueue: 1", limit=2)
    async with supervise(text) as supervisor, trio.open_nursery() as nursery:
        async with supervisor.lease("a", by("batch")):
            pass
        for key in ("batch", "batch", "mate"):
            nursery.start_soon(use, supervisor, "a", key, order, 5)
            await wait_all_tasks_blocked()
        nursery.start_soon(use, supervisor, "b", "plain", order, 5)
        await wait_all_tasks_blocked()
        assert len(supervisor.queue(9)) == 2
    assert sorted(order) == ["batch", "batch", "mate", "plain"]


async def test_a_batch_for_many_models_lets_a_colleague_in_between(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The batch has had a turn, so the colleague's model is next, although others wait longer."""
    order: list[str] = []
    text = config_of(f"{KEYS}maxWait: 1", models="abcd")
    async with supervise(text) as supervisor, trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(use, supervisor, name, "batch", order, 10)
            await wait_all_tasks_blocked()
        await trio.sleep(2)
        nursery.start_soon(use, supervisor, "d", "mate", order, 10)
    assert order == ["batch", "mate", "batch", "batch"]


async def test_a_full_queue_lets_a_colleague_wait(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """``maxQueue`` is for all keys, but a key with less than its part of it waits all the same."""
    order: list[str] = []
    text = config_of(f"{KEYS}maxQueue: 2")
    async with supervise(text) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use, supervisor, "a", "batch", order, 100)
        await trio.sleep(1)
        for _ in range(2):
            nursery.start_soon(use, supervisor, "b", "batch", order)
        await wait_all_tasks_blocked()
        with pytest.raises(QueueFull):
            await use(supervisor, "c", "batch", order)
        nursery.start_soon(use, supervisor, "c", "mate", order)
        await wait_all_tasks_blocked()
        with pytest.raises(QueueFull):
            await use(supervisor, "c", "mate", order)
    assert sorted(order) == ["batch"] * 3 + ["mate"]


async def test_who_leaves_the_queue_for_a_place_keeps_none(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """After that, the next request of its key may wait."""
    order: list[str] = []
    async with supervise(config_of(KEYS, limit=2)) as supervisor, trio.open_nursery() as nursery:
        async with supervisor.lease("a", by("batch")):
            pass
        for _ in range(2):
            nursery.start_soon(use, supervisor, "a", "batch", order, 50)
        await wait_all_tasks_blocked()
        for _ in range(3):
            with trio.move_on_after(1) as scope:
                await use(supervisor, "a", "mate", order)
            assert scope.cancelled_caught
        await use(supervisor, "a", "mate", order)
    assert order == ["batch", "batch", "mate"]


@pytest.mark.parametrize("now", [101, 200])
def test_of_equals_the_key_goes_first_that_has_had_fewer_turns(now: float) -> None:
    """The model's priority counts first, then the turns, then age."""
    models = {name: Snapshot(model=name) for name in "ab"}
    demands = [Demand(model="a", since=99), Demand(model="b", since=100)]
    patience = Patience(max_wait=10)
    assert decide(demands, models, one_at_a_time, patience, now).wishes.keys() == {"a"}
    demands = [Demand(model="a", since=99, turn=1), Demand(model="b", since=100)]
    assert decide(demands, models, one_at_a_time, patience, now).wishes.keys() == {"b"}
