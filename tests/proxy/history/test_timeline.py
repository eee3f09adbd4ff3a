"""The timeline of a daemon: the states of its models, their times and their causes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import attrs
import pytest
import trio

from proxy.history.finished import Activity
from proxy.history.spans import Timeline
from tests.peers.client import ask, chat
from tests.proxy.daemon import Daemon, daemon, stub

SLEEPS: dict[str, Any] = {"sleeps": True}


async def timeline(running: Daemon, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await ask(running.port, "GET", f"/api/timeline{query}")).json()
    return found


def states(told: dict[str, Any], model: str) -> list[tuple[str, str]]:
    return [(s["state"], s["cause"]["why"]) for s in told["spans"] if s["model"] == model]


async def test_a_swap_is_told_with_its_decision() -> None:
    """A decision names the request, its wait, the rule, the model that made room, and the cost."""
    async with daemon({"a": stub(**SLEEPS), "b": stub(**SLEEPS)}) as running:
        await chat(running.port, "a")
        body = b'{"model": "b", "messages": []}'
        headers = {"x-request-id": "mine"}
        await ask(running.port, "POST", "/v1/chat/completions", body, headers)
        told = await timeline(running)
    assert states(told, "a") == [
        ("starting", "request"),
        ("ready", "request"),
        ("sleepPending", "room"),
        ("asleep", "room"),
    ]
    assert states(told, "b") == [("starting", "request"), ("ready", "request")]
    first, second = told["decisions"]
    assert (first["model"], first["victims"]) == ("a", [])
    assert (second["model"], second["request"], second["client"]) == ("b", "mine", "127.0.0.1")
    assert second["rule"] == "one at a time"
    assert 0 <= second["waited"] < 1
    (victim,) = second["victims"]
    assert victim["model"] == "a"
    assert victim["because"] == "its last request had just ended"
    assert victim["took"] > 0
    assert second["ready"] >= second["at"]
    fell_asleep = next(s for s in told["spans"] if s["state"] == "sleepPending")
    assert fell_asleep["cause"] == {
        "why": "room",
        "text": victim["because"],
        "model": "b",
        "decision": second["id"],
    }
    assert [step["name"] for step in fell_asleep["steps"]] == ["cmdSleep"]
    assert fell_asleep["begin"] <= fell_asleep["end"]
    assert {one["model"] for one in told["busy"]} == {"a", "b"}
    assert {one["model"] for one in told["waits"]} == {"a", "b"}


async def test_who_is_closed_for_newcomers_leaves_for_that() -> None:
    """The model had requests, and another model's request had waited for maxWait."""
    async with daemon({"a": stub(), "b": stub()}, maxWait=1) as running:
        async with trio.open_nursery() as nursery:
            body = b'{"model": "a", "messages": [], "delay": 1.6}'
            nursery.start_soon(ask, running.port, "POST", "/v1/chat/completions", body)
            while running.state("a") != "ready":
                await trio.sleep(0.01)
            await chat(running.port, "b")
        told = await timeline(running)
    (victim,) = told["decisions"][-1]["victims"]
    assert victim["because"].startswith("closed for newcomers ")
    assert victim["because"].endswith("before; it had a request, which has ended since")
    assert told["decisions"][-1]["waited"] > 1


async def test_an_operator_is_a_cause() -> None:
    """A load, a sleep, a wake and an unload each lead to spans with the operator as cause."""
    async with daemon({"a": stub(**SLEEPS)}) as running:
        for what in ("load", "sleep", "wake", "unload"):
            await ask(running.port, "POST", f"/api/models/{what}/a")
        told = await timeline(running)
    assert states(told, "a") == [
        ("starting", "operator"),
        ("ready", "operator"),
        ("sleepPending", "operator"),
        ("asleep", "operator"),
        ("waking", "operator"),
        ("ready", "operator"),
        ("stopping", "operator"),
    ]
    assert told["decisions"][0]["client"] == "127.0.0.1"
    assert told["spans"][-1]["cause"] == {"why": "operator", "client": "127.0.0.1"}
    waking = next(one for one in told["spans"] if one["state"] == "waking")
    assert waking["saved"] >= 0


async def test_idleness_is_a_cause() -> None:
    """The cause names the configuration key with the time."""
    async with daemon({"a": stub(sleeps=True, sleepTtl=1)}) as running:
        await chat(running.port, "a")
        with trio.fail_after(5):
            while running.state("a") != "asleep":
                await trio.sleep(0.02)
        told = await timeline(running)
    fell = next(one for one in told["spans"] if one["state"] == "sleepPending")
    assert fell["cause"] == {"why": "idle", "text": "idle for 1s (sleepTtl)"}


@pytest.mark.parametrize("way", ["start", "sleep"])
async def test_a_failure_is_a_cause(way: str) -> None:
    """The reason is in the span of the failure and in the span after it."""
    options = ("--exit", "3") if way == "start" else ("--faults", '{"/sleep": {"status": 500}}')
    async with daemon({"a": stub(*options, **SLEEPS), "b": stub()}) as running:
        await chat(running.port, "a")
        await chat(running.port, "b")
        told = await timeline(running)
        assert running.history.recorder.brought_up_for("a") is None
    spans = [one for one in told["spans"] if one["model"] == "a"]
    if way == "start":
        assert states(told, "a")[-1] == ("failed", "failure")
        assert "status 3" in spans[-1]["cause"]["text"]
        assert [one.get("failure") for one in spans if one["state"] == "starting"] == [
            spans[-1]["cause"]["text"]
        ]
    else:
        assert states(told, "a")[-2:] == [("sleepPending", "room"), ("stopping", "failure")]
        assert "cmdSleep" in spans[-2]["failure"]
        assert spans[-2]["failure"] == spans[-1]["cause"]["text"]
        assert_left_by_a_stop(told)


def assert_left_by_a_stop(told: dict[str, Any]) -> None:
    """Assert that the last decision says that its only victim was stopped."""
    decision = told["decisions"][-1]
    (victim,) = decision["victims"]
    own = [one for one in told["spans"] if one["model"] == victim["model"]]
    last = [one for one in own if one["state"] == "stopping"][-1]
    assert last["cause"]["decision"] == decision["id"]
    assert victim["proved"] is None
    assert victim["took"] >= round(last["end"] - last["begin"], 3)
    assert victim["because"]


async def test_a_failed_sleep_counts_to_the_time_that_making_room_took() -> None:
    """The time of making room begins with the sleep, not with the stop that follows it."""
    slow = stub(cmdSleep="sh -c 'sleep 0.3; exit 1'", cmdWake="true")
    async with daemon({"a": slow, "b": stub()}) as running:
        await chat(running.port, "a")
        await chat(running.port, "b")
        told = await timeline(running)
    assert_left_by_a_stop(told)
    assert told["decisions"][-1]["victims"][0]["took"] > 0.3


async def test_a_crash_while_it_falls_asleep_makes_room() -> None:
    """The decision is not left open."""
    slow = stub(cmdSleep="sleep 60", cmdWake="true")
    async with daemon({"a": slow, "b": stub()}) as running:
        await chat(running.port, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat, running.port, "b")
            while running.state("a") != "sleepPending":
                await trio.sleep(0.01)
            os.kill(running.pid("a") or 0, signal.SIGKILL)
        assert_left_by_a_stop(await timeline(running))


async def test_sleepers_that_are_stopped_for_a_second_try_made_room() -> None:
    """The decision is that of the first try. Sleepers of earlier decisions are also named."""
    models = {"a": stub(**SLEEPS), "c": stub(**SLEEPS), "b": stub("--exit", "3")}
    async with daemon(models) as running:
        for name in models:
            await chat(running.port, name)
        told = await timeline(running)
    decision = told["decisions"][-1]
    assert decision["ready"] is None
    assert [(one["model"], one["proved"]) for one in decision["victims"]] == [
        ("c", None),
        ("a", None),
    ]
    tries = [one for one in told["spans"] if one["model"] == "b" and one["state"] == "starting"]
    assert [one["cause"]["decision"] for one in tries] == [decision["id"]] * 2
    stops = [one for one in told["spans"] if one["state"] == "stopping" and one["model"] != "b"]
    assert [one["cause"]["decision"] for one in stops] == [decision["id"]] * 2


async def test_the_asker_is_who_waits_when_the_first_has_left() -> None:
    """If the first client disconnects during a start, the next waiting client is the asker."""
    async with daemon({"a": stub("--ready-after", "0.8")}) as running:
        body = b'{"model": "a", "messages": []}'

        async def ask_as(name: str) -> None:
            await ask(running.port, "POST", "/v1/chat/completions", body, {"x-request-id": name})

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.3):
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(ask_as, "first")
                    await trio.sleep(0.1)
                    nursery.start_soon(ask_as, "second")
        (decision,) = (await timeline(running))["decisions"]
    assert decision["request"] == "second"


async def test_a_closed_model_that_is_gone_is_forgotten() -> None:
    """The model crashed while it was closed for newcomers, and a reload then removed it."""
    async with daemon({"a": stub(), "b": stub(), "c": stub()}, maxWait=1) as running:
        async with trio.open_nursery() as nursery:
            slow = b'{"model": "a", "messages": [], "delay": 20}'
            nursery.start_soon(ask, running.port, "POST", "/v1/chat/completions", slow)
            while running.state("a") != "ready":
                await trio.sleep(0.01)
            nursery.start_soon(chat, running.port, "b")
            with trio.fail_after(5):
                await running.supervisor.until_closed("a")
            os.kill(running.pid("a") or 0, signal.SIGKILL)
            with trio.fail_after(5):
                while running.state("b") != "ready":
                    await trio.sleep(0.01)
        config = running.supervisor.config
        models = {name: one for name, one in config.models.items() if name != "a"}
        running.supervisor.reload(attrs.evolve(config, models=models))
        with trio.fail_after(5):
            while "a" in running.supervisor.servers:
                await trio.sleep(0.01)
        assert (await chat(running.port, "c")).status == 200
        told = await timeline(running)
    assert all(one["end"] for one in told["spans"] if one["model"] == "a")


async def test_a_fault_in_what_is_kept_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Models and requests go on, and the log reports the fault."""

    def fails(*_: object, **__: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(Timeline, "add", fails)
    monkeypatch.setattr(Activity, "add", fails)
    async with daemon({"a": stub(**SLEEPS), "b": stub()}) as running:
        for model in "aba":
            assert (await chat(running.port, model)).status == 200
        assert running.state("a") == "ready"
    said = {str(line["event"]) for line in log_lines}
    assert "Internal error; a part of the timeline is missing" in said
    assert "Internal error; a request is missing in the history" in said


async def test_a_window_has_what_happened_in_it() -> None:
    """The window is given in seconds or as dates; the default is the last hour."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        assert not (await timeline(running, f"?since=0&until={time.time() - 100}"))["spans"]
        assert (await timeline(running, "?since=2020-01-01T00:00:00Z"))["spans"]
        for query in ("?since=yesterday", "?since=20&until=10"):
            assert (await ask(running.port, "GET", f"/api/timeline{query}")).status == 400


async def test_requests_are_played_with_other_settings() -> None:
    """The request needs a readable window, and the daemon must have been started from files."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        body = b'{"since": 0, "until": 9999999999, "maxWait": 5}'
        reply = await ask(running.port, "POST", "/api/simulate", body)
        assert reply.status == 400  # this daemon was not started from files
        assert b"did not come from a file" in reply.body
        for bad in (b"", b"[]", b'{"since": 1}', b'{"since": 1, "until": "x"}'):
            assert (await ask(running.port, "POST", "/api/simulate", bad)).status == 400
