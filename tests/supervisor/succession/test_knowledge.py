"""What was learned of models outlives the daemon, whatever happens to the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from configschema import Model, parse
from supervisor.states.footprint import Footprint
from supervisor.states.habits import Habits
from supervisor.states.learned import NOTHING_LEARNED, Learned
from supervisor.states.snapshot import Costs
from supervisor.succession import knowledge as module
from supervisor.succession.knowledge import BETWEEN_WRITES, Knowledge
from supervisor.succession.records import Records, write_anew
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

SOME = Learned(Footprint(gpus=(5,), host=3, lives=2), Costs(start=2.0, counts={"start": 1}))


def model(cmd: str = "serve --port ${PORT}", name: str = "a", **keys: object) -> Model:
    whole: dict[str, Any] = {"startPort": keys.pop("start", 5800)}
    text = json.dumps({**whole, "models": {name: {"cmd": cmd, **keys}}})
    return parse(text).config.models[name]


def kept(file: Path, **learned: Learned) -> None:
    """Write what a daemon has learned of the models with these names."""
    knowledge = Knowledge(file)
    for name, one in learned.items():
        knowledge.keep(model(name=name), one)
    knowledge.write()


def test_the_next_daemon_knows_what_this_one_has_learned(tmp_path: Path) -> None:
    """Each model has its own values."""
    file = tmp_path / "learned.json"
    other = Learned(habits=Habits((1.0,)))
    kept(file, a=SOME, b=other)
    again = Knowledge(file)
    assert again.recall(model()) == SOME
    assert again.recall(model(name="b")) == other
    assert again.recall(model(name="c")) == NOTHING_LEARNED
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_port_that_has_changed_does_not_matter(tmp_path: Path) -> None:
    """llamadoze chooses the port, which moves with the models before it in the file."""
    file = tmp_path / "learned.json"
    kept(file, a=SOME)
    assert Knowledge(file).recall(model(start=7000)) == SOME
    with_model_port = "serve --port ${PORT} --name m5800"
    knowledge = Knowledge(file)
    knowledge.keep(model(with_model_port), SOME)
    assert knowledge.recall(model(with_model_port, start=5801)) == SOME


@pytest.mark.parametrize(
    "changed",
    [
        {"cmd": "serve --port ${PORT} --ctx 8192"},
        {"env": ["A=1"]},
        {"gpus": 2},
        {"name": "b"},
        {"cmdSleep": "x", "cmdWake": "y"},
    ],
)
def test_a_model_that_is_started_in_another_way_is_measured_anew(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    """When the old way is back, the model is known again."""
    file = tmp_path / "learned.json"
    kept(file, a=SOME)
    knowledge = Knowledge(file)
    assert knowledge.recall(model(**changed)) == NOTHING_LEARNED
    knowledge.keep(model(**changed), Learned(Footprint(gpus=(9,), lives=1)))
    assert knowledge.recall(model()) == SOME


@pytest.mark.parametrize("key", ["ttl", "memory", "keep", "description"])
def test_what_does_not_change_its_start_is_no_other_model(tmp_path: Path, key: str) -> None:
    """For example, only the guess of its memory may have been corrected."""
    file = tmp_path / "learned.json"
    kept(file, a=SOME)
    values: dict[str, Any] = {"ttl": 5, "memory": {"gpu": 3}, "keep": True, "description": "x"}
    assert Knowledge(file).recall(model(**{key: values[key]})) == SOME


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"models"',
    b"{}",
    b'{"models": []}',
    b'{"models": null}',
    b'{"models": {"x": 3, "y": {"footprint": [], "costs": 1, "gaps": {}}}}',
    b'{"models": {"x": {"footprint": {"gpus": [1e400]}}}}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"models": ' + b'{"a":' * 20_000,
    b"9" * 5000,
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_no_reason_not_to_start(
    tmp_path: Path, data: bytes, log_lines: LogLines
) -> None:
    """The models are measured anew, and the file is written again."""
    file = tmp_path / "learned.json"
    file.write_bytes(data)
    knowledge = Knowledge(file)
    assert knowledge.recall(model()) == NOTHING_LEARNED
    knowledge.keep(model(), SOME)
    knowledge.write()
    assert Knowledge(file).recall(model()) == SOME


def test_a_file_that_cannot_be_read_is_no_reason_not_to_start(
    tmp_path: Path, log_lines: LogLines
) -> None:
    """The path may be a folder, a pipe without a writer, too large a file, or a loop of links."""
    folder, pipe, large, loop = (tmp_path / name for name in ("folder", "pipe", "large", "loop"))
    folder.mkdir()
    os.mkfifo(pipe)
    with large.open("wb") as opened_file:
        opened_file.truncate(50_000_000)
    loop.symlink_to(loop)
    for file in (folder, pipe, large, loop):
        assert Knowledge(file).recall(model()) == NOTHING_LEARNED
    said = [line for line in events(log_lines) if line.startswith("Cannot read")]
    assert len(said) == 4
    assert all(line.endswith("llamadoze measures the models again") for line in said)


def test_no_file_yet_is_nothing_to_speak_of(tmp_path: Path, log_lines: LogLines) -> None:
    """The first daemon has no file, so nothing is logged."""
    Knowledge(tmp_path / "learned.json")
    Knowledge(tmp_path / "no/such/folder/learned.json")
    assert events(log_lines) == []


def test_a_write_that_fails_is_told_once_and_ends_nothing(
    tmp_path: Path, log_lines: LogLines
) -> None:
    """What is learned lasts until the daemon ends, and is written as soon as that works again."""
    file = tmp_path / "gone/learned.json"
    knowledge = Knowledge(file)
    for gap in (1.0, 2.0, 3.0):
        knowledge.keep(model(), Learned(habits=Habits((gap,))))
        knowledge.write()
    assert len([line for line in events(log_lines) if line.startswith("Cannot write")]) == 1
    assert knowledge.recall(model()).habits.gaps == (3.0,)
    file.parent.mkdir()
    knowledge.keep(model(), SOME)
    knowledge.write()
    assert Knowledge(file).recall(model()) == SOME


def test_the_models_of_longest_ago_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a limited number of models is kept, so the file does not grow forever."""
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    file = tmp_path / "learned.json"
    knowledge = Knowledge(file)
    for name in "abc":
        knowledge.keep(model(name=name), SOME)
    knowledge.keep(model(name="a"), Learned(Footprint(gpus=(6,), lives=3)))
    knowledge.write()
    again = Knowledge(file)
    known = [name for name in "abc" if again.recall(model(name=name)) is not NOTHING_LEARNED]
    assert known == ["a", "c"]


async def test_what_is_learned_is_written_within_seconds_and_not_more_often(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is killed loses no more than those seconds."""
    file, times = tmp_path / "learned.json", []
    original = write_anew

    def noting(*arguments: Any) -> None:
        times.append(trio.current_time())
        original(*arguments)

    monkeypatch.setattr(module, "write_anew", noting)
    knowledge = Knowledge(file)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(knowledge.run)
        for second in range(20):
            knowledge.keep(model(), Learned(habits=Habits((float(second),))))
            await trio.sleep(1)
        last = Knowledge(file).recall(model()).habits.gaps[-1]
        assert last >= 20 - 1 - BETWEEN_WRITES
        await trio.sleep(100)
        assert Knowledge(file).recall(model()).habits.gaps == (19.0,)
        nursery.cancel_scope.cancel()
    assert len(times) == 4


# With models.


def models_of(room: FakeRoom, names: str = "ab") -> dict[str, object]:
    room.gpus = {"GPU-aa": 24.0}
    room.takes = dict.fromkeys(names, Takes(gpu=10, host=1, gpu_asleep=1))
    return {name: served(name) for name in names}


async def test_a_first_life_that_the_daemon_s_end_cuts_off_is_learned_from(
    autojump_clock: MockClock, room: FakeRoom, tmp_path: Path
) -> None:
    """The next daemon runs both models side by side at once."""
    text = written(models_of(room), {})
    async with opened(room, text, records=Records(tmp_path)) as supervisor:
        await use(supervisor, "a", 3)
        await use(supervisor, "b", 3)
    async with opened(room, text, records=Records(tmp_path)) as supervisor:
        assert supervisor.servers["b"].known.footprint.gpus == (10 * GIB,)
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a").value == "ready"
        assert supervisor.servers["a"].at.costs.start is not None


async def test_a_daemon_that_is_killed_has_written_what_it_saw_seconds_ago(
    autojump_clock: MockClock, room: FakeRoom, tmp_path: Path
) -> None:
    """This includes a model whose state has not changed since."""
    text = written(models_of(room), {})
    async with opened(room, text, records=Records(tmp_path)) as supervisor:
        await use(supervisor, "a", 3)
        await supervisor.sleep("a")
        await trio.sleep(6)
        found = Knowledge(tmp_path / "learned.json").recall(supervisor.config.models["a"])
        assert (found.footprint.gpus, found.footprint.lives) == ((10 * GIB,), 1)
        assert found.footprint.gpus_asleep == (GIB,)
        async with supervisor.lease("b"):
            await trio.sleep(3)
            room.takes["b"] = Takes(gpu=14)
            await trio.sleep(8)
            seen = Knowledge(tmp_path / "learned.json").recall(supervisor.config.models["b"])
            assert seen.footprint.peak_gpus == (14 * GIB,)
