"""Looks at memory while models start, fail and are used: what they count, and what they decide.

It also shows what is decided without a look, or needs no decision at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml
from trio.testing import MockClock

from configschema import Model, parse
from supervisor import NoRoom, State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.processes.survey import Survey
from supervisor.room import nvml
from supervisor.room.devices import look, matching
from supervisor.scheduling.decisions import Decision, Demand, Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.scheduling.scheduler import Scheduler
from supervisor.scheduling.turns import decide
from supervisor.states.learned import NOTHING_LEARNED
from supervisor.states.snapshot import Costs, Snapshot
from supervisor.states.table import Wish
from supervisor.succession.knowledge import Knowledge
from tests.supervisor.scheduling.fakeroom import (
    GIB,
    FakeRoom,
    Takes,
    opened,
    room,
    served,
    written,
)
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

__all__ = ["room"]  # a fixture

BEGUN_ANEW = "Internal error; llamadoze restarts this part of itself"
HANGS = "a driver does not answer"


@pytest.fixture
def one_gpu(room: FakeRoom) -> FakeRoom:
    """A machine with one GPU of 24 GiB."""
    room.gpus = {"GPU-aa": 24.0}
    return room


def pair(room: FakeRoom, takes: Takes, names: str = "ab", **keys: Any) -> dict[str, object]:
    """Return models that take the same; their guess for the GPU is right."""
    room.takes |= dict.fromkeys(names, takes)
    return {name: served(name, memory={"gpu": takes.gpu}, **keys) for name in names}


def takes_long(supervisor: Supervisor, name: str, seconds: float) -> None:
    """Let a model become ready only after some seconds."""
    when = trio.current_time() + seconds

    async def probe(_: Model) -> str | None:
        await trio.lowlevel.checkpoint()
        return "loading" if trio.current_time() < when else None

    server = supervisor.servers[name]
    server.contact = attrs.evolve(server.contact, probe=probe)


def others(supervisor: Supervisor, device: str = "GPU-aa") -> float:
    """Return the GiB of a device that others than models are seen to hold."""
    return supervisor._fleet.rooms.here.space.others[device] / GIB


def look_now(supervisor: Supervisor) -> None:
    supervisor._fleet.rooms.here.refresh()


def told(room: FakeRoom, name: str) -> str | None:
    return room.env[name].get("CUDA_VISIBLE_DEVICES")


# While a model starts or wakes.


async def test_a_second_start_that_takes_long_is_not_refused_for_its_own_memory(
    autojump_clock: MockClock, one_gpu: FakeRoom
) -> None:
    """Its process is not that of its first life, and what it holds is not a stranger's."""
    models = pair(one_gpu, Takes(gpu=20), "a", sleeps=False)
    async with opened(one_gpu, written(models, {})) as supervisor:
        await use(supervisor, "a", 3)
        await supervisor.unload("a")
        await trio.sleep(3)
        takes_long(supervisor, "a", 25)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            for _ in range(10):
                await trio.sleep(2)
                look_now(supervisor)
                await trio.sleep(0.1)
                assert state(supervisor, "a") is State.STARTING
                assert others(supervisor) == 0
        assert state(supervisor, "a") is State.READY


async def test_nobody_yields_to_a_model_that_starts_for_the_second_time(
    autojump_clock: MockClock, one_gpu: FakeRoom, log_lines: LogLines
) -> None:
    """What its new process takes of the GPU is not a stranger's."""
    one_gpu.takes = {"a": Takes(gpu=13.7), "b": Takes(gpu=10)}
    models = {"a": served("a", sleeps=False), "b": served("b")}
    together = {"side": {"swap": False, "members": ["a", "b"]}}
    text = yaml.safe_dump({"models": models, "groups": together, "yield": True})
    async with opened(one_gpu, text) as supervisor:
        for name in "ab":
            await use(supervisor, name)
        await trio.sleep(3)
        await supervisor.unload("a")
        await trio.sleep(15)
        takes_long(supervisor, "a", 25)
        await use(supervisor, "a")
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
    assert not [line for line in events(log_lines) if line.startswith("Yielding")]


@pytest.mark.parametrize("root", [None, 1])
async def test_a_container_that_cannot_be_seen_before_it_is_ready_is_no_stranger(
    autojump_clock: MockClock,
    one_gpu: FakeRoom,
    monkeypatch: pytest.MonkeyPatch,
    root: int | None,
) -> None:
    """Until then its root is unknown, or is the engine's client, which holds no GPU memory."""
    plain = ModelServer.root

    async def of_engine(self: ModelServer) -> int | None:
        return root if self.at.state is State.STARTING else await plain(self)

    monkeypatch.setattr(ModelServer, "root", of_engine)
    models = pair(one_gpu, Takes(gpu=20), "a")
    async with opened(one_gpu, written(models, {})) as supervisor:
        takes_long(supervisor, "a", 25)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a", 5)
            await trio.sleep(10)
            look_now(supervisor)
            await trio.sleep(3)
            assert (state(supervisor, "a"), others(supervisor)) == (State.STARTING, 0)
        assert supervisor.servers["a"].known.footprint.peak_gpus == (20 * GIB,)


async def test_a_model_that_comes_up_is_not_refused_for_strangers_that_grow_meanwhile(
    autojump_clock: MockClock, one_gpu: FakeRoom
) -> None:
    """The model has its room already; only a later request is told of the strangers."""
    models = pair(one_gpu, Takes(gpu=20), "a")
    async with opened(one_gpu, written(models, {})) as supervisor:
        takes_long(supervisor, "a", 30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            await trio.sleep(3)
            one_gpu.strangers["GPU-aa"] = 3.7
            for _ in range(10):
                look_now(supervisor)
                await trio.sleep(2)
            assert others(supervisor) == pytest.approx(3.7)
            assert state(supervisor, "a") is State.STARTING
        assert state(supervisor, "a") is State.READY
        await supervisor.unload("a")
        with pytest.raises(NoRoom, match=r"3\.7 GiB are held by other programs"):
            await use(supervisor, "a")


async def test_a_wake_that_fails_starts_again_where_that_is_decided_anew(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The new process gets its GPU, and no other model is placed there while it starts."""
    models = {
        **pair(room, Takes(gpu=14, gpu_asleep=1), "ac"),
        **pair(room, Takes(gpu=8, gpu_asleep=1), "b"),
    }
    models["a"] = {**served("a", memory={"gpu": 14}), "cmdWake": "fail 1"}
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a")
        await supervisor.sleep("a")
        await trio.sleep(3)
        takes_long(supervisor, "a", 40)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            await trio.sleep(8)
            assert state(supervisor, "a") is State.STARTING
            where = supervisor.servers["a"].known.gpus
            assert (told(room, "a"),) == where
            for name in "cb":
                await use(supervisor, name)
            assert told(room, "c") not in where
            assert max(room.held_on(gpu) for gpu in room.gpus) <= 24
        assert state(supervisor, "a") is State.READY
    assert room.history.count("+ serve a") == 2


# Looks that go wrong.


async def test_a_model_may_be_removed_by_a_reload_during_a_look(
    autojump_clock: MockClock,
    room: FakeRoom,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look is waiting for another model's engine at that moment, and goes on."""
    plain = ModelServer.root

    async def slowly(self: ModelServer) -> int | None:
        await trio.sleep(1)
        return await plain(self)

    monkeypatch.setattr(ModelServer, "root", slowly)
    models = pair(room, Takes(gpu=10))
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a")  # and a look begins
        await trio.sleep(0.5)
        supervisor.reload(parse(written({"a": models["a"]}, {})).config)
        await trio.sleep(2)
        assert [*supervisor.servers] == ["a"]
        assert supervisor.servers["a"].known.footprint.gpus == (10 * GIB,)
        assert supervisor.servers["a"].known.footprint.peak_gpus == (10 * GIB,)
    assert BEGUN_ANEW not in events(log_lines)


async def test_a_look_that_raises_ends_nothing_and_is_made_again(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """A request that waits for the look is served a second later, and the log has the error."""
    failed_at: list[float] = []
    models = pair(room, Takes(gpu=10))
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a", 3)
        await trio.sleep(10)
        plain = room.take

        async def take(roots: Mapping[str, int]) -> Survey:
            if not failed_at:
                failed_at.append(trio.current_time())
                raise ValueError("a driver's file that nobody foresaw")
            return await plain(roots)

        supervisor._fleet.rooms.here.take = take
        with trio.fail_after(5):
            await use(supervisor, "b")
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        assert min(when for when in room.looks if when > failed_at[0]) >= failed_at[0] + 1
    assert events(log_lines).count(BEGUN_ANEW) == 1


async def test_a_driver_that_hangs_is_told_of_once_and_decisions_go_on(
    autojump_clock: MockClock, one_gpu: FakeRoom, log_lines: LogLines
) -> None:
    """Decisions use what was seen before; only the first of them waits for the driver."""
    models = pair(one_gpu, Takes(gpu=20, gpu_asleep=1))
    async with opened(one_gpu, written(models, {})) as supervisor:
        for name in "aba":
            await use(supervisor, name)
        await trio.sleep(5)
        one_gpu.hangs = True
        took = []
        for name in "bababa":
            began = trio.current_time()
            await use(supervisor, name, 20)
            took.append(trio.current_time() - began - 20)
        assert took[0] < 10
        assert max(took[1:]) < 4  # a sleep of one second, a wake of two
    assert len([line for line in events(log_lines) if HANGS in line]) == 1


async def test_models_start_although_the_driver_hangs_when_the_daemon_starts(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """Nothing was seen yet, but the models wait only for the longest look."""
    room.hangs = True
    models = pair(room, Takes(gpu=10))
    async with opened(room, written(models, {})) as supervisor:
        began = trio.current_time()
        await use(supervisor, "a", 1)
        assert trio.current_time() - began < 10
        began = trio.current_time()
        await use(supervisor, "b", 60)
        assert trio.current_time() - began < 65
        assert state(supervisor, "b") is State.READY
        room.hangs = False
        await trio.sleep(10)
        assert {*room.gpus} == {*supervisor._fleet.rooms.here.space.gpus}
    assert len([line for line in events(log_lines) if HANGS in line]) == 1


async def test_a_model_that_is_used_is_looked_after_every_two_seconds(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The looks begin even if no model was in use when the last look ended."""
    room.takes["a"] = Takes(gpu=10)
    async with opened(room, written({"a": served("a")}, {})) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(10)
        room.takes["a"] = Takes(gpu=15)
        began = trio.current_time()
        async with supervisor.lease("a"):
            await trio.sleep(60)
        looks = [began, *(when for when in room.looks if when >= began), trio.current_time()]
        assert max(after - before for before, after in pairwise(looks)) < 2.1
        assert supervisor.servers["a"].known.footprint.peak_gpus == (15 * GIB,)


# The host.


async def test_files_that_a_model_maps_are_not_taken_off_what_strangers_hold(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The kernel counts them as free, but they must not hide any of the strangers' 10 GiB."""
    room.gpus, room.host = {}, 40
    room.strangers["host"] = 10
    room.takes["a"] = Takes(host=20, mapped=15)
    models = {"a": served("a", memory={"host": 20})}
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a", 5)
        assert supervisor.servers["a"].known.footprint.host == 20 * GIB
        assert others(supervisor, "host") == 10
        await supervisor.sleep("a")
        await trio.sleep(3)
        assert others(supervisor, "host") == 10


async def test_models_that_cannot_be_seen_are_no_strangers_on_the_host(
    autojump_clock: MockClock, room: FakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine may not tell what its containers hold; what they are assumed to need is theirs."""

    async def unseen(_: ModelServer) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(ModelServer, "root", unseen)
    room.gpus, room.host = {}, 64
    room.takes = dict.fromkeys("ab", Takes(host=25))
    models = {name: served(name, memory={"host": 25}) for name in "ab"}
    async with opened(room, written(models, {})) as supervisor:
        for name in "abab":
            await use(supervisor, name, 3)
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        assert others(supervisor, "host") == 0


# What clients and operators are told.


async def test_who_finds_no_room_beside_a_lease_may_come_back_when_that_ends(
    autojump_clock: MockClock, one_gpu: FakeRoom
) -> None:
    """The refusal names the end of the lease, whatever the forecast of the model's wake is."""
    models = pair(one_gpu, Takes(gpu=20))
    async with opened(one_gpu, written(models, {})) as supervisor:
        for name in "aba":
            await use(supervisor, name, 2)
        await supervisor.keep_for("a", 900, "job")
        await trio.sleep(100)
        with pytest.raises(NoRoom, match="lease of job") as refused:
            await use(supervisor, "b")
        assert refused.value.wait == pytest.approx(800, abs=1)


async def test_settings_that_name_no_gpu_that_is_there_leave_models_none(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """Models are kept from all other GPUs, and the log says so once."""
    room.takes["a"] = Takes(host=1)
    models = {"a": served("a", memory={"host": 1})}
    async with opened(room, written(models, {"gpus": ["9"]})) as supervisor:
        for _ in range(2):
            await use(supervisor, "a", 10)
            assert told(room, "a") == ""
            await supervisor.unload("a")
    assert len([line for line in events(log_lines) if "No GPU is called '9'" in line]) == 1


@pytest.mark.parametrize("text", ["00000000:C1:00.0", "0000:c1:00.0", "c1:00.0"])
def test_a_gpu_is_found_by_its_address_however_long_the_domain_is_written(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """nvidia-smi writes eight digits, the kernel four, and people none."""
    facts: dict[str, Any] = {"title": "made up", "total": GIB, "used": 0, "processes": ()}
    gpus = [
        nvml.Gpu(uuid="GPU-a", number=0, address="0000:c1:00.0", **facts),
        nvml.Gpu(uuid="GPU-b", number=1, address="0001:c1:00.0", **facts),
    ]
    monkeypatch.setattr(nvml, "gpus", lambda: gpus)
    found = matching([one.device for one in look([])], text)
    assert found is not None
    assert found.name == "GPU-a"


def test_a_number_of_400_digits_in_what_was_learned_is_left_out(tmp_path: Path) -> None:
    """The rest of the file is read."""
    model = parse("models: {a: {cmd: serve, proxy: 'http://model.test:9'}}").config.models["a"]
    file = tmp_path / "learned.json"
    before = Knowledge(file)
    learned = attrs.evolve(NOTHING_LEARNED, costs=Costs(start=123.0, wake=2.0))
    before.keep(model, learned)
    before.write()
    text = file.read_text().replace("123.0", "9" * 400)
    file.write_text(text.replace('"gaps": []', f'"gaps": [1.5, {"9" * 400}]'))
    found = Knowledge(file).recall(model)
    assert (found.costs.start, found.costs.wake, found.habits.gaps) == (None, 2.0, (1.5,))
    assert json.loads(json.dumps(found.as_data()))


# Without a decision.


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which something was decided."""
    made: list[float] = []
    plain = Scheduler._decide

    def counted(self: Scheduler) -> Decision:
        made.append(trio.current_time())
        return plain(self)

    monkeypatch.setattr(Scheduler, "_decide", counted)
    return made


async def test_a_newcomer_gets_in_without_a_decision_until_its_model_is_closed(
    autojump_clock: MockClock, one_gpu: FakeRoom, decisions: list[float]
) -> None:
    """It gets in although others wait for another model; once it is closed, those go first."""
    models = pair(one_gpu, Takes(gpu=20))
    async with opened(one_gpu, written(models, {}, maxWait=10)) as supervisor:
        await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a", 20)
            await trio.sleep(1)
            nursery.start_soon(use, supervisor, "b")
            await trio.sleep(5)
            assert [turn.server.model.id for turn in supervisor._scheduler.waiting] == ["b"]
            before = len(decisions)
            async with supervisor.lease("a"):
                assert len(decisions) == before
            await trio.sleep(8)
            assert len(decisions) > before
            began = trio.current_time()
            await use(supervisor, "a")
            assert trio.current_time() - began > 5
            assert state(supervisor, "b") is State.ASLEEP  # it was served first


async def test_a_lease_that_ends_while_others_use_the_model_makes_no_decision(
    autojump_clock: MockClock, one_gpu: FakeRoom, decisions: list[float]
) -> None:
    """Nothing waits for one of several leases to end, only for the last of them."""
    models = pair(one_gpu, Takes(gpu=20))
    async with opened(one_gpu, written(models, {}, maxWait=0)) as supervisor:
        await use(supervisor, "a")
        first, second = supervisor.lease("a"), supervisor.lease("a")
        for turn in (first, second):
            await turn.__aenter__()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "b")
            await trio.sleep(1)
            before = len(decisions)
            first.leave()
            assert len(decisions) == before
            second.leave()
            assert len(decisions) > before
        assert state(supervisor, "b") is State.READY


# Whose turn it is.


def called_first(demands: Iterable[Demand], now: float) -> str:
    """Return which of some stopped models is called; one model runs at a time."""
    costs = {"quick": Costs(start=1, stop=0.1), "slow": Costs(start=2, stop=0.1)}
    models = {name: Snapshot(model=name, costs=one) for name, one in costs.items()}
    decision = decide(demands, models, one_at_a_time, Patience(max_wait=60), now)
    (name,) = (name for name, wish in decision.wishes.items() if wish is Wish.SERVE)
    return name


@pytest.mark.parametrize(
    ("waited", "first"),
    [
        ({"quick": 1, "slow": 2}, "slow"),  # a few seconds: the higher priority
        ({"quick": 30, "slow": 1}, "slow"),  # one has waited for four times the cost
        ({"quick": 30, "slow": 20}, "slow"),  # both have
        ({"quick": 61, "slow": 20}, "quick"),  # one has waited for the longest wait
        ({"quick": 62, "slow": 61}, "quick"),  # both have: the older goes first
        ({"quick": 61, "slow": 62}, "slow"),
    ],
)
def test_priority_goes_before_a_cheap_swap_until_the_longest_wait(
    waited: dict[str, float], first: str
) -> None:
    """This includes models that have waited for four times the cost of a swap."""
    now, priorities = 100.0, {"quick": 0, "slow": 1}
    demands = [
        Demand(model=name, since=now - seconds, priority=priorities[name])
        for name, seconds in waited.items()
    ]
    assert called_first(demands, now) == first
