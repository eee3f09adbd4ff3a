"""llama.cpp's slots are saved before a sleep and a stop, and restored after a wake and a start."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import Call, Limits, Model, parse
from supervisor import State, Supervisor, open_supervisor
from supervisor.model import checkup
from supervisor.model.ending import KeptSlots
from supervisor.sleep.contact import Answer, Contact
from supervisor.sleep.slots import LISTED_WITHIN, MOST, Slots, stem_of
from tests.conftest import processes_with
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import model, parse_models, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

NAPPER = "cmd: 'x ${PORT} --sleep-idle-seconds 2 --slot-save-path d', sleep: llama.cpp, slots: keep"
LISTED: Answer = Answer([{"id": 0, "is_processing": False}, {"id": 1, "is_processing": False}])
SAVED = Answer({"n_saved": 1371, "n_written": 22 << 20, "n_restored": 1371, "n_read": 22 << 20})


@attrs.define(eq=False)
class FakeSlots:
    """Answers requests about slots as llama.cpp does, and notes them.

    Attributes:
        wrong: other answers than the good ones, by the beginning of the path; None never answers.
        made: the paths that were asked.
        bodies: the bodies that came with them, which name the files.
        sleeps: whether the server says that it sleeps.
    """

    wrong: dict[str, Answer | None] = attrs.field(factory=dict)
    made: list[str] = attrs.field(factory=list)
    bodies: list[dict[str, str]] = attrs.field(factory=list)
    sleeps: bool = False

    async def __call__(self, step: Call) -> Answer:
        await trio.lowlevel.checkpoint()
        path = "/" + step.url.split("/", 3)[3]
        self.made.append(path)
        if step.body:
            self.bodies.append(json.loads(step.body))
        for start, answer in self.wrong.items():
            if path.startswith(start):
                return answer or await trio.sleep_forever()
        if path.startswith("/props"):
            return Answer({"is_sleeping": self.sleeps})
        return LISTED if step.method == "GET" else SAVED

    @property
    def taken(self) -> list[str]:
        """The requests for the slots themselves."""
        return [path for path in self.made if path.startswith("/slots/")]


def only(keys: str) -> Model:
    (found,) = parse(f"models: {{m: {{{keys}}}}}").config.models.values()
    return found


BOTH = ["/slots/0?action=save", "/slots/1?action=save"]
BACK = ["/slots/0?action=restore", "/slots/1?action=restore"]


async def test_each_slot_is_saved_to_a_file_of_its_own(log_lines: LogLines) -> None:
    """Each slot is restored from its file, and the log says how much that was."""
    server = FakeSlots()
    slots = Slots(only(NAPPER), server, "llamadoze-1", 30)
    await slots.save()
    await slots.restore()
    assert server.made == ["/props", "/slots", *BOTH, "/slots", *BACK]
    assert server.bodies == 2 * [{"filename": f"llamadoze-1-{number}.bin"} for number in (0, 1)]
    saved, restored = events(log_lines)
    assert saved.startswith("<m> Saved 2 of 2 slots: 2742 tokens, 44 MiB, in ")
    assert restored.startswith("<m> Restored 2 of 2 slots: 2742 tokens, 44 MiB, in ")


async def test_a_server_that_sleeps_is_not_asked_for_its_slots() -> None:
    """Such a server has no slots any more, and the question would wake it."""
    server = FakeSlots(sleeps=True)
    await Slots(only(NAPPER), server, "s", 30).save()
    assert server.made == ["/props"]


async def test_a_slot_that_works_is_left_alone() -> None:
    """The server would save it only when its work is done, which may be much later."""
    works = Answer([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}])
    server = FakeSlots({"/slots/": SAVED, "/slots": works})
    await Slots(only(NAPPER), server, "s", 30).save()
    assert server.taken == ["/slots/1?action=save"]


async def test_a_router_is_told_whose_slots_are_meant() -> None:
    """The router is also told not to load the model for that."""
    server, router = FakeSlots(), "cmd: 'x ${PORT}', sleep: llama.cpp-router, useModelName: q 4"
    await Slots(only(router), server, "s", 30).save()
    asked = "?model=q+4&autoload=false"
    assert server.made == [f"/props{asked}", f"/slots{asked}", *BOTH]
    assert {body["model"] for body in server.bodies} == {"q 4"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"/slots": Answer(failure="answered 501")}, "No slot was saved: /slots answered 501"),
        (
            {"/slots/0": Answer(failure="answered 501 (no path)")},
            "No slot was saved: save slot 0 answered 501 (no path)",
        ),
        ({"/slots/": Answer({"n_saved": 0})}, None),
        ({"/slots/": Answer("text")}, None),
        ({"/slots": Answer({"id": 1})}, None),
    ],
)
async def test_what_cannot_be_saved_is_told_and_fails_nothing(
    log_lines: LogLines, wrong: dict[str, Answer | None], said: str | None
) -> None:
    """Any answer of the server is accepted; slots with nothing in them are not logged."""
    await Slots(only(NAPPER), FakeSlots(wrong), "s", 30).save()
    assert events(log_lines) == ([f"<m> {said}"] if said else [])


@pytest.mark.parametrize(
    ("wrong", "limit", "took", "said"),
    [
        ({"/props": None}, 60, LISTED_WITHIN, "No slot was saved: no answer within 2s"),
        ({"/slots/1": None}, 60, MOST, "The slots were not saved within 30s; skipping them"),
        ({"/slots/1": None}, 5, 5, "The slots were not saved within 5s; skipping them"),
    ],
)
async def test_a_server_that_does_not_answer_holds_up_nobody_for_long(
    autojump_clock: MockClock,
    log_lines: LogLines,
    wrong: dict[str, Answer | None],
    limit: float,
    took: float,
    said: str,
) -> None:
    """The server has 2 s to list its slots, and at most half the time of a sleep to save them."""
    began = trio.current_time()
    await Slots(only(NAPPER), FakeSlots(wrong), "s", limit).save()
    assert trio.current_time() - began == pytest.approx(took)
    assert events(log_lines) == [f"<m> {said}"]


async def test_the_files_of_other_settings_or_other_weights_have_other_names(
    tmp_path: Path,
) -> None:
    """What other weights have read means nothing to a model; the port does not matter."""
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"x")

    async def stem(name: str = "m", start: int = 5800, more: str = "", env: str = "A=1") -> str:
        keys = f"cmd: 'x --port ${{PORT}} -m {weights} {more}', slots: keep, env: ['{env}']"
        text = f"{{startPort: {start}, models: {{{name}: {{{keys}}}}}}}"
        (found,) = parse(text).config.models.values()
        return await stem_of(found)

    first = await stem()
    assert first == await stem(start=15800) == await stem(env="A=2")
    others = [
        await stem(name="n"),
        await stem(more="-c 2048"),
        await stem(env="LLAMA_ARG_MODEL=n.gguf"),
    ]
    os.utime(weights, (1, 1))
    others.append(await stem())
    assert len({first, *others}) == 5


@asynccontextmanager
async def supervised(server: FakeSlots, **keys: object) -> AsyncIterator[Supervisor]:
    """Open a supervisor of a model that keeps its slots, and one that needs its room."""
    a = {"cmd": "sleep 1001", "slots": "keep", **keys}
    config = parse_models(a=a, b={"cmd": "sleep 1002"})
    contact = Contact(probe=FakeProbe(), call=FakeCalls(), ask=server)
    limits = {"a": Limits(unload=2), "b": Limits(unload=2)}
    async with open_supervisor(config, contact, limits) as supervisor:
        yield supervisor


async def test_slots_are_saved_before_a_stop_and_restored_after_the_next_start() -> None:
    """It does not matter who asks for the stop, and the file names stay the same."""
    server = FakeSlots()
    async with supervised(server) as supervisor:
        await use(supervisor, "a")
        assert server.taken == BACK
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.STOPPED
        assert server.taken == [*BACK, *BOTH]
        await use(supervisor, "a")
        await supervisor.unload("a")
        await use(supervisor, "a")
    assert server.taken == 3 * [*BACK, *BOTH]
    assert len({body["filename"] for body in server.bodies}) == 2


async def test_slots_are_saved_before_a_sleep_and_restored_after_the_wake(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The process stays the same, and its slots are restored."""
    server = FakeSlots()
    a = model("serve a", sleep="llama.cpp", slots="keep")
    contact = Contact(probe=FakeProbe(), call=FakeCalls(), ask=server)
    async with open_supervisor(parse(two(a, model("serve b"))).config, contact) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
        assert server.taken == [*BACK, *BOTH]
        assert await use(supervisor, "a") == first
        assert server.taken == [*BACK, *BOTH, *BACK]


async def test_the_slots_of_what_sleeps_are_not_saved_at_its_end() -> None:
    """The slots of a sleeper are empty."""
    server = FakeSlots()
    async with supervised(server, sleep="llama.cpp") as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
        await supervisor.unload("a")
        assert state(supervisor, "a") is State.STOPPED
    assert server.taken == [*BACK, *BOTH]


@pytest.mark.parametrize(
    "keys",
    [
        {"cmd": "sleep 0.1", "checkEndpoint": "none"},
        {"slots": None},
        {"sleep": "vllm"},
    ],
)
async def test_nothing_is_saved_of_a_server_that_has_ended_or_has_no_slots(
    keys: dict[str, object],
) -> None:
    """After a crash there is no server to ask."""
    server = FakeSlots()
    async with supervised(server, **keys) as supervisor:
        await use(supervisor, "a")
        if "cmd" in keys:
            await supervisor.servers["a"].reached(frozenset({State.FAILED}))
    assert not any("save" in path for path in server.taken)


async def test_nothing_is_saved_of_a_server_that_was_never_ready() -> None:
    """Such a server has read nothing."""
    server = FakeSlots()
    config = parse_models(a={"cmd": "sleep 1001", "slots": "keep"})
    contact = Contact(probe=FakeProbe({"a"}), call=FakeCalls(), ask=server)
    async with (
        open_supervisor(config, contact, {"a": Limits(unload=2)}) as supervisor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(use, supervisor, "a")
        await supervisor.servers["a"].reached(frozenset({State.STARTING}))
        nursery.cancel_scope.cancel()
        await supervisor.unload("a")
    assert server.made == []


async def test_the_slots_of_a_server_that_was_there_already_are_saved_before_its_end() -> None:
    """Nothing is restored into it, because it still has what it has read."""
    server, probe = FakeSlots(), FakeProbe()
    config = parse_models(a={"cmdStop": "true", "slots": "keep"})
    contact = Contact(probe=probe, call=FakeCalls(), ask=server)
    async with (
        open_supervisor(config, contact, {"a": Limits(unload=5)}) as supervisor,
        trio.open_nursery() as nursery,
    ):
        await supervisor.servers["a"].reached(frozenset({State.READY}))
        await use(supervisor, "a", 0.2)  # meanwhile a thread looks at the weights
        nursery.start_soon(supervisor.unload, "a")
        with trio.fail_after(5):
            while server.taken != BOTH:
                await trio.sleep(0.01)
        probe.unready.add("a")
    assert server.taken == BOTH


async def test_nothing_is_saved_of_a_server_that_is_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for the end of the server, which would not answer."""
    for time in ("LOOKS_EVERY", "WATCHED_EVERY"):
        monkeypatch.setattr(checkup, time, 0.05)
    server, probe = FakeSlots(), FakeProbe()
    config = parse_models(a={"cmd": "sleep 1001", "slots": "keep", "watch": True})
    contact = Contact(probe=probe, call=FakeCalls(), ask=server)
    async with open_supervisor(config, contact, {"a": Limits(unload=1)}) as supervisor:
        await use(supervisor, "a")
        probe.unready.add("a")
        await supervisor.servers["a"].reached(frozenset({State.FAILED}))
        assert server.taken == BACK


async def test_an_end_that_is_hurried_waits_for_no_slots() -> None:
    """llamadoze kills the server at once, even if the server is saving its slots."""
    server = FakeSlots({"/slots/1?action=save": None})
    with trio.fail_after(5):
        async with supervised(server) as supervisor, trio.open_nursery() as nursery:
            await use(supervisor, "a")
            nursery.start_soon(supervisor.unload, "a")
            while server.taken != [*BACK, *BOTH]:
                await trio.sleep(0.01)
            supervisor.cut()
    assert processes_with("sleep 1001") == []


async def test_a_second_request_to_end_has_no_time_for_slots() -> None:
    """llamadoze asks a server a second time only if there is no time left."""
    asked: list[str] = []

    @attrs.define
    class FakeServer:
        ask: Any
        has_ended: bool = False

    async def end() -> None:
        asked.append("end")

    async def save(_: str) -> None:
        asked.append("save")

    server: Any = FakeServer(end)
    actions: Any = type("A", (), {"model": only(NAPPER), "save_slots": staticmethod(save)})
    kept = KeptSlots.of(server, lambda: actions)
    await kept.begin()
    await server.ask()
    await server.ask()
    assert asked == ["save", "end", "end"]
