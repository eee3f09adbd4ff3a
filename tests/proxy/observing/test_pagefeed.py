"""Events for the daemon's own pages: as they happen, and only the requested kinds."""

from __future__ import annotations

import json
from typing import Any

import trio

from proxy.observing import pagefeed
from proxy.observing.events import KINDS
from tests.peers.client import Client, ask, chat
from tests.proxy.daemon import daemon, stub
from tests.proxy.views.test_views import reading

SLEEPS: dict[str, Any] = {"sleeps": True}


class Heard:
    """The events that a listener received, by kind."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.rest = b""
        self.told: dict[str, list[Any]] = {}

    async def until(self, kind: str, holds: Any = lambda _: True) -> Any:
        """Read until an event of this kind fulfils the condition; return the event."""
        with trio.fail_after(5):
            while True:
                for one in self.told.get(kind, []):
                    if holds(one):
                        return one
                await self.read()

    async def read(self) -> None:
        event = await self.client.event()
        self.rest += event.data
        *whole, self.rest = self.rest.split(b"\n\n")
        for message in whole:
            envelope = json.loads(message.partition(b"data:")[2])
            self.told.setdefault(envelope["type"], []).append(json.loads(envelope["data"]))


async def test_only_the_kinds_that_are_asked_for_are_told() -> None:
    """The default is llama-swap's kinds and our small ones; an unknown kind is refused."""
    async with daemon({"a": stub()}) as running:
        async with reading(running.port, "/api/events?kinds=models,activity") as client:
            heard = Heard(client)
            await heard.until("models")
            await chat(running.port, "a")
            await heard.until("activity")
            assert heard.told.keys() == {"models", "activity"}
        async with reading(running.port, "/api/events") as client:
            heard = Heard(client)
            await chat(running.port, "a")
            await heard.until("activity")
            await heard.until("memory")
            usual = {"modelStatus", "logData", "inflight", "uiConfig", "profileChanged", "lease"}
            assert usual | {"activity", "timeline", "queue", "memory"} == heard.told.keys()
        reply = await ask(running.port, "GET", "/api/events?kinds=models,nothing")
        assert reply.status == 400
        assert b"kinds=nothing" in reply.body
        assert all(kind.encode() in reply.body for kind in KINDS)


async def test_a_row_says_all_that_is_known_of_a_model() -> None:
    """First there is a row for each model, and then a row for each model that changes."""
    async with (
        daemon({"a": stub(**SLEEPS), "b": stub()}) as running,
        reading(running.port, "/api/events?kinds=models") as client,
    ):
        heard = Heard(client)
        first = await heard.until("models")
        assert first["operation"] == "snapshot"
        assert [row["id"] for row in first["models"]] == ["a", "b"]
        await chat(running.port, "a")
        later = await heard.until("models", lambda told: told["models"][0]["state"] == "ready")
        (row,) = later["models"]
        assert row["id"] == "a"
        assert row["canSleep"] is True
        assert row["costs"]["counts"] == {"start": 1}
        assert later["now"] - row["since"] < 5


async def test_who_waits_is_told_with_place_and_reason() -> None:
    """The row has the models ahead, their requests in flight, and the beginning of the wait."""
    async with (
        daemon({"a": stub(), "b": stub()}) as running,
        reading(running.port, "/api/events?kinds=queue") as client,
        trio.open_nursery() as nursery,
    ):
        heard = Heard(client)
        await heard.until("queue")
        body = b'{"model": "a", "messages": [], "delay": 1.5}'
        nursery.start_soon(ask, running.port, "POST", "/v1/chat/completions", body)
        while running.state("a") != "ready":
            await trio.sleep(0.01)
        nursery.start_soon(chat, running.port, "b")

        def has_b(told: Any) -> bool:
            return [row["model"] for row in told["waiting"]] == ["b"]

        told = await heard.until("queue", has_b)
        (row,) = told["waiting"]
        assert (row["place"], row["why"]) == (1, "request")
        assert row["behind"] == [{"model": "a", "state": "ready", "in_flight": 1}]
        assert 0 <= told["now"] - row["since"] < 2
        since = told["now"]
        await heard.until("queue", lambda told: told["now"] > since and not told["waiting"])


async def test_spans_and_decisions_are_told_as_they_change() -> None:
    """Several changes within a moment are one event with the newest state."""
    async with (
        daemon({"a": stub(**SLEEPS), "b": stub()}) as running,
        reading(running.port, "/api/events?kinds=timeline") as client,
    ):
        heard = Heard(client)
        first = await heard.until("timeline")
        assert first["spans"] == []
        await chat(running.port, "a")
        await chat(running.port, "b")

        def is_done(told: Any) -> bool:
            return any(
                one["model"] == "b" and one.get("ready") for one in told.get("decisions", [])
            )

        told = await heard.until("timeline", is_done)
        assert told["operation"] == "upsert"
        for part in heard.told["timeline"]:
            for kind in ("spans", "decisions"):
                numbers = [one["id"] for one in part.get(kind, [])]
                assert len(set(numbers)) == len(numbers)


async def test_a_flood_of_log_is_cut_and_counted() -> None:
    """The event has the newest whole lines and the number of omitted bytes."""
    loud = stub("--flood", "1")
    async with (
        daemon({"a": loud}) as running,
        reading(running.port, "/api/events?kinds=log") as client,
    ):
        heard = Heard(client)
        await chat(running.port, "a")

        def is_cut(told: Any) -> bool:
            return any(one["dropped"] for one in told["lines"])

        told = await heard.until("log", is_cut)
        (line,) = [one for one in told["lines"] if one["dropped"]]
        assert line["source"] == "upstream/a"
        assert len(line["data"]) <= pagefeed.MOST_LOGGED
        assert line["data"].startswith("all work")


async def test_a_pause_and_a_reload_are_told() -> None:
    """The event also comes if no model changes its state."""
    async with (
        daemon({"a": stub()}) as running,
        reading(running.port, "/api/events?kinds=daemon") as client,
    ):
        heard = Heard(client)
        first = await heard.until("daemon")
        assert first["paused"] is False
        await ask(running.port, "POST", "/api/pause")
        await heard.until("daemon", lambda told: told["paused"])
        await ask(running.port, "POST", "/api/resume")
        await heard.until(
            "daemon", lambda told: not told["paused"] and len(heard.told["daemon"]) > 2
        )


async def test_memory_is_looked_at_only_while_somebody_watches() -> None:
    """The daemon then measures every two seconds, at least the memory of the host."""
    settings = {"performance": {"disabled": True}}
    async with daemon({"a": stub("--hold", "30")}, **settings) as running:  # type: ignore[arg-type] # settings of the file
        looks = 0
        take = running.supervisor.room.take

        async def counted(roots: Any) -> Any:
            nonlocal looks
            looks += 1
            return await take(roots)

        running.supervisor.room.take = counted
        await chat(running.port, "a")
        await trio.sleep(0.3)
        assert looks == 0
        async with reading(running.port, "/api/events?kinds=memory") as client:
            told = await Heard(client).until("memory", lambda told: told["models"])
        (device,) = [one for one in told["devices"] if one["name"] == "host"]
        assert device["awake"] >= 30 << 20
        assert device["awake"] + device["asleep"] + device["others"] <= device["total"]
        assert told["models"][0]["model"] == "a"
        before = looks
        await trio.sleep(0.3)
        assert looks <= before + 1
