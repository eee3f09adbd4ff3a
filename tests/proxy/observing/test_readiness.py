"""When a model will be ready, according to lists, events and refusals."""

from __future__ import annotations

import json
from math import ceil, inf
from typing import Any

import pytest
import trio

from proxy.http.errors import problem_of
from supervisor import BackingOff, NoRoom, Paused, QueueFull, TooManyRequests
from supervisor.scheduling.forecast import Forecast
from tests.peers.client import ask, chat
from tests.proxy.daemon import Daemon, daemon, stub


async def row_of(running: Daemon, name: str) -> dict[str, Any]:
    rows = (await ask(running.port, "GET", "/running")).json()["running"]
    (found,) = (row for row in rows if row["model"] == name)
    return dict(found)


async def status_of(running: Daemon, name: str) -> dict[str, Any]:
    reply = await ask(running.port, "GET", f"/v1/models/{name}")
    return dict(reply.json()["status"])


async def events_of(running: Daemon, model: str) -> dict[str, Any]:
    """Return a model's row as a client reads it that begins to listen now."""
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with stream:
        await stream.send_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read = b""
        with trio.fail_after(3):
            while b"uiConfig" not in read:
                read += await stream.receive_some()
    (line,) = (line for line in read.split(b"\n") if b"modelStatus" in line)
    rows = json.loads(json.loads(line.removeprefix(b"data:"))["data"])
    return dict(next(row for row in rows if row["id"] == model))


async def test_lists_and_events_tell_when_a_model_that_comes_up_is_ready() -> None:
    """The time appears only while a start or a request waits, and only after a measurement."""
    models = {"a": stub("--ready-after", "0.6", aliases=["other"]), "b": stub()}
    async with daemon(models) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")
        assert (await row_of(running, "a"))["readyIn"] == 0
        assert (await row_of(running, "a"))["readyInMeasured"] == 0
        assert await status_of(running, "a") == {"value": "loaded"}
        assert "readyIn" not in await events_of(running, "a")
        await ask(running.port, "POST", "/api/models/unload/a")
        assert await status_of(running, "a") == {"value": "unloaded"}
        assert "readyIn" not in await events_of(running, "a")
        nursery.start_soon(chat, running.port, "a")
        await trio.sleep(0.15)
        row = await row_of(running, "a")
        assert row["state"] == "starting"
        assert 0 < row["readyIn"] <= 0.6
        assert row["readyInMeasured"] == 1
        for name in ("a", "other"):
            status = await status_of(running, name)
            assert status["value"] == "loading"
            assert 0 < status["readyIn"] <= 0.6
        assert 0 < (await events_of(running, "a"))["readyIn"] <= 0.6


async def test_what_was_never_measured_is_unknown_in_lists() -> None:
    """A key that all models have is null; a key that only some models have is missing."""
    async with daemon({"a": stub("--ready-after", "0.6")}) as running, trio.open_nursery() as all_:
        all_.start_soon(chat, running.port, "a")
        await trio.sleep(0.2)
        row = await row_of(running, "a")
        assert (row["state"], row["readyIn"], row["readyInMeasured"]) == ("starting", None, None)
        assert await status_of(running, "a") == {"value": "loading"}
        assert "readyIn" not in await events_of(running, "a")


async def test_a_model_that_is_waited_for_is_foretold_with_who_must_leave() -> None:
    """The forecast also works for a sleeping model; without a waiting request, there is none."""
    quick: dict[str, Any] = {"cmdSleep": "sleep 0.3", "cmdWake": "sleep 0.4"}
    async with daemon({name: stub(**quick) for name in "ab"}) as running:
        for name in "abab":
            await chat(running.port, name)
        row = await row_of(running, "a")
        assert (row["state"], row["readyIn"]) == ("asleep", None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: chat(running.port, "b", delay=0.5))
            await trio.sleep(0.1)
            nursery.start_soon(chat, running.port, "a")
            await trio.sleep(0.1)
            row = await row_of(running, "a")
            assert (row["state"], row["waiting"]) == ("asleep", 1)
            assert 0.7 <= row["readyIn"] < 1.5
            status = await status_of(running, "a")
            assert (status["value"], status["readyIn"]) == ("sleeping", row["readyIn"])


async def test_a_full_queue_says_when_the_model_will_be_ready() -> None:
    """Retry-After is in whole seconds, if the time is known."""
    models = {"a": stub(), "b": stub("--ready-after", "1.2")}
    async with daemon(models, maxQueue=1) as running:
        for name in "ba":
            await chat(running.port, name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat, running.port, "b")
            await trio.sleep(0.3)
            row = await row_of(running, "b")
            refused = await chat(running.port, "b")
    assert refused.status == 503
    assert 1 <= int(refused.headers["retry-after"]) <= ceil(row["readyIn"])


@pytest.mark.parametrize(
    ("seconds", "expected"), [(37.2, "38"), (0.0, "1"), (0.2, "1"), (10_000, "3600")]
)
def test_who_is_refused_comes_back_when_the_model_is_ready(seconds: float, expected: str) -> None:
    """Retry-After is at least 1 second and at most an hour."""
    for error in (QueueFull("a", 1), BackingOff("a", 0.0, 4, "it ended")):
        problem = problem_of(error, {"a": Forecast(seconds, 1)}.get)
        assert problem.headers["Retry-After"] == expected


def test_who_is_refused_comes_back_no_sooner_than_that_can_help() -> None:
    """The wait covers the time until a model may start again, or until kept room becomes free."""
    soon = {"a": Forecast(2, 1)}.get
    refusals = (BackingOff("a", 8.0, 4, "it ended"), NoRoom("a", "full", 8))
    for error in refusals:
        assert problem_of(error, soon).headers["Retry-After"] == "8"


def test_who_is_refused_where_nothing_is_known_comes_back_as_ever() -> None:
    """The defaults also apply to errors that do not depend on a forecast."""
    for error, expected in (
        (QueueFull("a", 1), "5"),
        (BackingOff("a", 7.2, 4, "it ended"), "8"),
        (NoRoom("a", "b is kept", 9.5), "10"),
        (NoRoom("a", "b is kept", inf), "30"),
        (Paused("a"), "30"),
        (TooManyRequests("a", 1), "1"),
    ):
        assert problem_of(error).headers["Retry-After"] == expected
    foretold = {"a": Forecast(99.0, 1)}.get
    assert problem_of(Paused("a"), foretold).headers["Retry-After"] == "30"
