"""Looks at a machine's memory: when they are made, what they teach, and which GPUs models get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import parse
from supervisor import NoRoom, State, Supervisor
from supervisor.processes.survey import Survey
from supervisor.states.causes import Cause, Why
from supervisor.states.footprint import Footprint
from supervisor.states.table import Wish
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


def footprint(supervisor: Supervisor, name: str) -> Footprint:
    return supervisor.servers[name].known.footprint


def gpus(supervisor: Supervisor, name: str) -> tuple[str, ...]:
    return supervisor.servers[name].known.gpus


def told(room: FakeRoom, name: str) -> str | None:
    return room.env[name].get("CUDA_VISIBLE_DEVICES")


def many(room: FakeRoom, takes: Takes, names: str = "abc", **keys: Any) -> dict[str, object]:
    """Return models that take the same."""
    room.takes |= dict.fromkeys(names, takes)
    return {name: served(name, **keys) for name in names}


async def test_models_come_up_side_by_side_where_there_is_room(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """An unknown model gets a GPU to itself; once it was seen, it shares one."""
    models = many(room, Takes(gpu=10, host=1, gpu_asleep=1), "abcd")
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert {told(room, "a"), told(room, "b")} == {"GPU-aa", "GPU-bb"}
        await use(supervisor, "c")
        await use(supervisor, "d")
        for name in "abcdabcd":
            await use(supervisor, name)
        assert [state(supervisor, name) for name in "abcd"] == 4 * [State.READY]
        began = trio.current_time()
        for name in "abcd":
            await use(supervisor, name)
        assert trio.current_time() == began
        assert footprint(supervisor, "a").gpus == (10 * GIB,)
        assert max(room.held_on(gpu) for gpu in room.gpus) <= 24
    assert len([line for line in room.history if line.startswith("+ serve")]) == 4


async def test_a_decision_waits_for_a_look_after_a_step(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """What was seen before a model took memory, or gave it back, must not decide."""
    room.delay = 0.5
    models = many(room, Takes(gpu=20), "abc", memory={"gpu": 20})
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        # One look for the decision, a second of sleep, one look for the start.
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
        before = len(room.looks)
        await use(supervisor, "b")  # it serves: there is nothing to look at
        assert len(room.looks) <= before + 1


async def test_what_a_model_leaves_asleep_is_learned(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """What the sleeper leaves counts on its GPU, so the next model has less room there."""
    models = many(room, Takes(gpu=20, host=2, gpu_asleep=3, host_asleep=5), "ab")
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        await trio.sleep(1)
        known = footprint(supervisor, "a")
        assert (known.lives, known.gpus, known.host) == (1, (20 * GIB,), 2 * GIB)
        assert (known.gpus_asleep, known.host_asleep) == ((3 * GIB,), 5 * GIB)


async def test_what_strangers_hold_is_seen_and_not_given_away(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The model starts on the other GPU; the models' own memory is not a stranger's."""
    room.strangers["GPU-aa"] = 10
    models = many(room, Takes(gpu=20), "a", memory={"gpu": 20})
    async with opened(room, written(models, {"reserve": 1024})) as supervisor:
        await use(supervisor, "a")
        assert told(room, "a") == "GPU-bb"
        space = supervisor._fleet.rooms.here.space
        assert space.others["GPU-aa"] == 10 * GIB
        assert space.others["GPU-bb"] == 0
        assert space.whole["GPU-bb"] == 23 * GIB


async def test_a_request_waits_some_seconds_for_what_strangers_hold_and_looks_seldom(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The strangers may be about to end; if not, the request is refused, with who holds what."""
    room.strangers = dict.fromkeys(room.gpus, 20)
    models = many(room, Takes(gpu=20), "a", memory={"gpu": 20})
    async with opened(room, written(models, {})) as supervisor:
        began = trio.current_time()
        with pytest.raises(NoRoom, match=r"20\.0 GiB are held by other programs"):
            await use(supervisor, "a")
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        assert 2 <= len(room.looks) <= 11
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            await trio.sleep(3)
            room.strangers.clear()
        assert state(supervisor, "a") is State.READY


async def test_there_are_few_looks_while_a_request_waits_for_a_model_in_use(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """One look every two seconds sees what the model may grow; decisions add their own looks."""
    models = many(room, Takes(gpu=20), "ab", memory={"gpu": 20})
    text = written(models, {"gpus": ["0"]}, maxWait=0)
    async with opened(room, text) as supervisor:
        await use(supervisor, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a", 100)
            await trio.sleep(1)
            nursery.start_soon(use, supervisor, "b")
            before = len(room.looks)
            await trio.sleep(90)
            assert len(room.looks) - before <= 60
        assert state(supervisor, "b") is State.READY
        await trio.sleep(5)
        before = len(room.looks)
        await trio.sleep(1000)
        assert len(room.looks) == before


async def test_an_awake_model_that_grows_is_measured_again(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """While the model is used, the most that was seen of it counts."""
    models = many(room, Takes(gpu=5), "a", memory={"gpu": 5})
    async with opened(room, written(models, {})) as supervisor:
        async with supervisor.lease("a"):
            await trio.sleep(3)
            room.takes["a"] = Takes(gpu=9)
            await trio.sleep(3)
            room.takes["a"] = Takes(gpu=7)
            await trio.sleep(3)
        assert footprint(supervisor, "a").gpus == (9 * GIB,)


# The host.


async def test_the_host_is_shared_by_what_its_key_gives(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """What others hold of the host does not matter; two of three models fit."""
    room.gpus, room.host = {}, 64
    room.strangers["host"] = 60
    models = many(room, Takes(host=4), "abc", memory={"host": 4})
    async with opened(room, written(models, {"hostMemory": 10})) as supervisor:
        for name in "ab":
            await use(supervisor, name)
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        await use(supervisor, "c")
        awake = [name for name in "abc" if state(supervisor, name) is State.READY]
        assert len(awake) == 2
        assert footprint(supervisor, "c").gpus is None


async def test_without_that_key_the_host_is_what_others_leave(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A twentieth of the host is left to the system."""
    room.gpus, room.host = {}, 40
    room.strangers["host"] = 20
    models = many(room, Takes(host=9), "ab", memory={"host": 9})
    async with opened(room, written(models, {})) as supervisor:
        for name in "ab":
            await use(supervisor, name)
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        room.strangers["host"] = 21
        await use(supervisor, "a", 3)
        assert supervisor._fleet.rooms.here.space.free_for_models["host"] == 17 * GIB


# Drivers that fail.


async def test_a_driver_that_names_no_processes_leaves_guesses(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """What models are assumed to hold is theirs; unknown models get a GPU alone, for good."""
    room.tells = False
    models = {
        **many(room, Takes(gpu=10), "ab", memory={"gpu": 10}),
        **many(room, Takes(gpu=15), "c"),
    }
    room.gpus = {"GPU-aa": 24.0}
    async with opened(room, written(models, {})) as supervisor:
        for name in "abab":
            await use(supervisor, name)
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        await use(supervisor, "c")
        await use(supervisor, "a")
        await use(supervisor, "c")
        assert footprint(supervisor, "c").gpus is None
        assert [state(supervisor, name) for name in "abc"] == [
            State.ASLEEP,
            State.ASLEEP,
            State.READY,
        ]
    assert not [line for line in events(log_lines) if "failed" in line]


async def test_a_driver_that_hangs_delays_a_decision_by_five_seconds_and_no_more(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """After the delay, what was seen before counts; the log says so once per silence."""
    models = many(room, Takes(gpu=20, gpu_asleep=1), "ab", memory={"gpu": 20})
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(1)
        room.hangs = True
        began = trio.current_time()
        await use(supervisor, "b")
        assert trio.current_time() - began < 15
        await use(supervisor, "a")
        said = [line for line in events(log_lines) if "a driver does not answer" in line]
        assert len(said) == 1
        room.hangs = False
        await trio.sleep(10)
        await use(supervisor, "b")
        room.hangs = True
        await trio.sleep(2)
        await use(supervisor, "a")
    assert len([line for line in events(log_lines) if "a driver does not answer" in line]) == 2


async def test_a_driver_that_takes_longer_than_a_look_is_fresh_starves_nobody(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The driver's answer counts from when it came."""
    room.delay = 3
    models = many(room, Takes(gpu=20), "ab", memory={"gpu": 20})
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        with trio.fail_after(60):
            for name in "abab":
                await use(supervisor, name)
        assert len(room.looks) < 40


async def test_a_gpu_that_vanishes_is_used_no_more(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A model that slept there is stopped, and starts on another GPU."""
    models = many(room, Takes(gpu=20, gpu_asleep=1), "ab", memory={"gpu": 20})
    async with opened(room, written(models, {})) as supervisor:
        for name in "ab":
            await use(supervisor, name)
        where = told(room, "a")
        assert where
        await supervisor.sleep("a")
        other = ({*room.gpus} - {where}).pop()
        room.gpus = {other: 24.0}
        await trio.sleep(10)
        await use(supervisor, "a")
        assert told(room, "a") == other
        assert state(supervisor, "b") is State.ASLEEP


async def test_a_driver_that_sees_no_gpu_any_more_is_one_that_does_not_answer(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """The driver may just be replaced, so no model counts as needing no GPU."""
    models = many(room, Takes(gpu=20, gpu_asleep=1), "ab")
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        await use(supervisor, "a", 3)
        gpus_there, room.gpus = room.gpus, {}
        await use(supervisor, "b")
        assert told(room, "b") == "GPU-aa"
        assert state(supervisor, "a") is State.ASLEEP
        room.gpus = gpus_there
        await trio.sleep(10)
        await use(supervisor, "a", 5)
        assert footprint(supervisor, "a").gpus == (20 * GIB,)
    assert [line for line in events(log_lines) if "a driver does not answer" in line]


async def test_a_gpu_that_comes_later_is_used_from_then_on(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """What was learned without a GPU does not say that a model needs none."""
    there, room.gpus = room.gpus, {}
    models = many(room, Takes(gpu=10, host=2, gpu_asleep=1), "ab")
    async with opened(room, written(models, {})) as supervisor:
        for name in "aba":
            await use(supervisor, name)
        assert footprint(supervisor, "b").lives == 1
        room.gpus = there
        await supervisor.unload("b")
        await use(supervisor, "b", 3)
        assert told(room, "b") in room.gpus
        await supervisor.sleep("b")
        await trio.sleep(1)
        assert footprint(supervisor, "b").gpus == (10 * GIB,)


# Which GPUs.


async def test_models_have_only_the_gpus_that_the_settings_name(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """The settings use the index or the name; the log names a missing GPU once."""
    models = many(room, Takes(gpu=5), "ab")
    async with opened(room, written(models, {"gpus": ["gpu-bb", "7"]})) as supervisor:
        for name in "abab":
            await use(supervisor, name)
        assert {told(room, name) for name in "ab"} == {"GPU-bb"}
    assert len([line for line in events(log_lines) if "No GPU is called '7'" in line]) == 1


async def test_a_gpu_of_a_model_that_is_not_there_is_told_of_once(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """The log says so once, and the model may run on any GPU."""
    models = many(room, Takes(gpu=5), "a", gpus=["9"])
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a", 10)
        await supervisor.unload("a")
        await use(supervisor, "a", 10)
    said = [line for line in events(log_lines) if "is called '9'" in line]
    assert said == ["<a> No GPU for models is called '9'; the model may run on any"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "GPU-aa"),
        ({"gpus": 2}, "GPU-aa,GPU-bb"),
        ({"gpus": ["1"]}, "GPU-bb"),
        ({"gpus": "1, 0"}, "GPU-bb,GPU-aa"),
        ({"gpus": 0}, ""),
        ({"env": ["CUDA_VISIBLE_DEVICES=1"]}, "1"),
        ({"env": ["CUDA_VISIBLE_DEVICES="]}, ""),
        ({"cmd": "env CUDA_VISIBLE_DEVICES=1 serve a"}, None),
        ({"memory": {"gpu": 0}}, None),
    ],
)
async def test_a_process_is_told_of_its_gpus_by_name(
    autojump_clock: MockClock, room: FakeRoom, keys: dict[str, Any], expected: str | None
) -> None:
    """If the model's own settings name GPUs, llamadoze does not."""
    seen: list[object] = []
    room.takes["a"] = Takes()
    original = room.open_child

    def spying(argv: Any, **more: Any) -> Any:
        seen.append(more["env"].get("CUDA_VISIBLE_DEVICES"))
        return original(argv, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supervisor.places.here.open_child", spying)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        async with opened(
            room, written({"a": served("a", sleeps=False, **keys)}, {})
        ) as supervisor:
            if "cmd" in keys:
                with trio.move_on_after(1):
                    await use(supervisor, "a")
            else:
                await use(supervisor, "a")
    assert seen == [expected]


async def test_a_model_that_names_its_gpu_itself_is_counted_there(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """Models that are in the way there leave, whatever is free elsewhere."""
    room.takes = {"a": Takes(gpu=20, gpu_asleep=1), "b": Takes(gpu=20, gpu_asleep=1)}
    fixed = served("b", env=["CUDA_VISIBLE_DEVICES=GPU-aa"], memory={"gpu": 20})
    models = {"a": served("a", memory={"gpu": 20}), "b": fixed}
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a")
        assert told(room, "a") == "GPU-aa"
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
        assert gpus(supervisor, "b") == ("GPU-aa",)


async def test_a_model_is_counted_where_it_is_seen(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A container may use another GPU than the one that was chosen for it."""
    room.takes = {"a": Takes(gpu=20), "b": Takes(gpu=20)}
    models = {name: served(name, memory={"gpu": 20}) for name in "ab"}
    async with opened(room, written(models, {})) as supervisor:
        original = room.seen_by
        room.seen_by = lambda name: ["GPU-bb"] if name == "a" else original(name)  # type: ignore[method-assign] # as a container would
        await use(supervisor, "a")
        await trio.sleep(1)
        assert gpus(supervisor, "a") == ("GPU-bb",)
        await use(supervisor, "b")
        assert told(room, "b") == "GPU-aa"
        assert state(supervisor, "a") is State.READY


# Other rules while models run.


async def test_memory_is_switched_on_and_off_while_models_run(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The change alone moves no model, and llamadoze sees where each model runs."""
    models = many(room, Takes(gpu=10, gpu_asleep=1), "abc")
    by_rule = "models: " + written(models, {}).partition("models:")[2].partition("routing:")[0]
    async with opened(room, by_rule) as supervisor:
        await use(supervisor, "a")
        assert room.looks == []
        assert told(room, "a") is None
        supervisor.reload(parse(written(models, {})).config)
        await trio.sleep(1)
        assert (state(supervisor, "a"), gpus(supervisor, "a")) == (State.READY, ("GPU-aa",))
        await use(supervisor, "b")
        assert told(room, "b") == "GPU-bb"
        assert state(supervisor, "a") is State.READY
        supervisor.reload(parse(by_rule).config)
        await use(supervisor, "c")
        assert [state(supervisor, name) for name in "abc"] == [
            State.ASLEEP,
            State.ASLEEP,
            State.READY,
        ]
        before = len(room.looks)
        await trio.sleep(30)
        assert len(room.looks) == before
        supervisor.reload(parse(written(models, {})).config)
        await use(supervisor, "b")
        assert state(supervisor, "b") is State.READY


async def test_a_smaller_host_memory_holds_for_the_next_decision(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The smaller limit counts although no look has shown a change."""
    room.gpus = {}
    models = many(room, Takes(host=4), "ab", memory={"host": 4})
    async with opened(room, written(models, {"hostMemory": 8})) as supervisor:
        await use(supervisor, "a")
        await trio.sleep(100)
        supervisor.reload(parse(written(models, {"hostMemory": 7})).config)
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_a_pause_holds_everybody_and_its_end_lets_them_in(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A look during the pause decides nothing."""
    models = many(room, Takes(gpu=10), "ab")
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "a")
        await supervisor.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "b")
            await trio.sleep(100)
            assert state(supervisor, "b") is State.STOPPED
            await supervisor.resume()
        assert room.history.count("+ serve b") == 1


async def test_a_removed_model_keeps_its_room_until_it_has_ended(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A request that waits for that room is served afterwards."""
    models = many(room, Takes(gpu=20), "ab", memory={"gpu": 20})
    async with opened(room, written(models, {"gpus": ["0"]}, maxWait=0)) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a", 10)
            await trio.sleep(3)
            only_b = parse(written({"b": models["b"]}, {"gpus": ["0"]}, maxWait=0)).config
            supervisor.reload(only_b)
            began = trio.current_time()
            await use(supervisor, "b")
            assert trio.current_time() - began > 5
        assert "a" not in supervisor.servers


async def test_a_model_that_is_called_back_while_it_ends_is_told_of_its_gpu(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """Its next server is given a GPU like any other."""
    models = many(room, Takes(gpu=20), "ab", sleeps=False, memory={"gpu": 20})
    async with opened(room, written(models, {"gpus": ["1"]})) as supervisor:
        await use(supervisor, "a")
        supervisor.servers["a"].wish(Wish.STOP, Cause(why=Why.OPERATOR))
        await use(supervisor, "a")
        assert told(room, "a") == "GPU-bb"
        assert room.history.count("+ serve a") == 2


async def test_a_guess_that_a_reload_corrects_holds_for_a_model_that_was_never_seen(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """Of a model that was seen, the measurement is better than the guess."""
    room.takes = {"a": Takes(gpu=5), "b": Takes(gpu=6)}
    before = {name: served(name, memory={"gpu": 20}) for name in "ab"}
    after = {name: served(name, memory={"gpu": 8}) for name in "ab"}
    async with opened(room, written(before, {})) as supervisor:
        await use(supervisor, "a", 3)
        await supervisor.unload("a")
        supervisor.reload(parse(written(after, {})).config)
        assert footprint(supervisor, "a").gpus == (5 * GIB,)
        assert footprint(supervisor, "b").gpus == (8 * GIB,)


@pytest.mark.parametrize("pids", [(), (4_194_305,)])
async def test_a_driver_that_cannot_name_our_processes_says_nothing_of_them(
    autojump_clock: MockClock, room: FakeRoom, pids: tuple[int, ...]
) -> None:
    """In a container the driver has the host's pids; no model then counts as using no GPU."""
    room.gpus = {"GPU-aa": 24.0}
    models = {**many(room, Takes(gpu=15), "ab"), **many(room, Takes(gpu=5), "c", memory={"gpu": 5})}
    plain = room.take

    async def take(roots: Mapping[str, int]) -> Survey:
        seen = await plain(roots)
        (one,) = seen.readings
        used = dict.fromkeys(pids, one.used)
        held = {name: attrs.evolve(its, gpu=0, by_gpu={}) for name, its in seen.held.items()}
        return attrs.evolve(seen, readings=[attrs.evolve(one, held=used)], held=held)

    async with opened(room, written(models, {})) as supervisor:
        supervisor._fleet.rooms.here.take = take
        for name in "abcab":
            await use(supervisor, name, 3)
            assert room.held_on("GPU-aa") <= 24
        assert footprint(supervisor, "a").gpus is None
        assert footprint(supervisor, "c").gpus == (5 * GIB,)
        assert told(room, "a") == "GPU-aa"
    assert len([line for line in room.history if line.startswith("+ serve")]) == 3


async def test_a_server_that_cannot_be_weighed_is_no_stranger(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """An engine may not tell what a container holds; what it is assumed to hold is its own."""
    room.gpus = {"GPU-aa": 24.0}
    models = {
        **many(room, Takes(gpu=12), "a", memory={"gpu": 12}),
        **many(room, Takes(gpu=10), "b", memory={"gpu": 10}),
    }
    plain = room.take

    async def take(roots: Mapping[str, int]) -> Survey:
        seen = await plain(roots)
        held = {name: its for name, its in seen.held.items() if name != "a"}
        return attrs.evolve(seen, held=held)

    async with opened(room, written(models, {})) as supervisor:
        supervisor._fleet.rooms.here.take = take
        await use(supervisor, "a", 3)
        await use(supervisor, "b", 3)
        assert [state(supervisor, name) for name in "ab"] == [State.READY] * 2
        assert supervisor._fleet.rooms.here.space.others["GPU-aa"] == 0


async def test_what_could_not_be_ended_keeps_its_room_and_who_needs_that_is_told(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """A model that fits beside it starts, and no request waits forever."""
    models: dict[str, object] = {
        **many(room, Takes(gpu=12), "a", sleeps=False, memory={"gpu": 12}),
        **many(room, Takes(gpu=20), "b", sleeps=False, memory={"gpu": 20}),
        **many(room, Takes(gpu=5), "c", sleeps=False, memory={"gpu": 5}),
    }
    room.unkillable.add("serve a")
    async with opened(room, written(models, {"gpus": ["0"]})) as supervisor:
        await use(supervisor, "a")
        with trio.fail_after(60), pytest.raises(NoRoom, match="could not be ended"):
            await use(supervisor, "b")
        await use(supervisor, "c")
        assert state(supervisor, "c") is State.READY
        room.stuck.clear()
        await trio.sleep(30)
        await use(supervisor, "b")
        assert state(supervisor, "b") is State.READY
