"""The APIs around the models."""

from __future__ import annotations

import pytest
import trio

from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub


async def test_health_is_ok_whatever_the_models_do() -> None:
    """The answer is that of llama-swap."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "GET", "/health")
        assert (reply.status, reply.body) == (200, b"OK")


async def test_models_are_listed_by_id_without_the_unlisted() -> None:
    """The list has OpenAI's form."""
    models = {
        "b": stub(name="Bee", description="buzzes"),
        "a": stub(aliases=["x"]),
        "c": stub(unlisted=True),
    }
    async with daemon(models) as running:
        listing = (await ask(running.port, "GET", "/v1/models")).json()
    assert listing["object"] == "list"
    assert [row["id"] for row in listing["data"]] == ["a", "b"]
    assert {row["object"] for row in listing["data"]} == {"model"}
    assert (listing["data"][1]["name"], listing["data"][1]["description"]) == ("Bee", "buzzes")


async def test_running_shows_state_pid_and_users() -> None:
    """Sleeping and failed models are listed; stopped models are not."""
    models = {"a": stub(sleeps=True, ttl=600), "b": stub(), "c": stub("--exit", "3"), "d": stub()}
    async with daemon(models) as running:
        for name in "cab":
            await chat(running.port, name)
        rows = (await ask(running.port, "GET", "/running")).json()["running"]
        assert [(row["model"], row["state"]) for row in rows] == [
            ("a", "asleep"),
            ("b", "ready"),
            ("c", "failed"),
        ]
        assert rows[0]["ttl"] == 600
        assert rows[1]["pid"] == running.pid("b")
        assert rows[1]["in_flight"] == 0
        assert "the stub gives up" in rows[2]["failure"]
        assert rows[2]["pid"] is None


async def test_models_are_loaded_put_to_sleep_woken_and_unloaded() -> None:
    """The path names the model by id, with slashes, or by alias."""
    async with daemon({"org/a": stub(sleeps=True, aliases=["gpt"])}) as running:
        api = "/api/models"
        loaded = (await ask(running.port, "POST", f"{api}/load/org/a")).json()
        assert (loaded["model"], loaded["state"]) == ("org/a", "ready")
        slept = (await ask(running.port, "POST", f"{api}/sleep/gpt")).json()
        assert (slept["state"], slept["pid"]) == ("asleep", loaded["pid"])
        woken = (await ask(running.port, "POST", f"{api}/wake/org%2Fa")).json()
        assert (woken["state"], woken["pid"]) == ("ready", loaded["pid"])
        for _ in range(2):
            reply = await ask(running.port, "POST", f"{api}/unload/org/a")
            assert (reply.status, reply.body) == (200, b"OK")
        assert running.state("org/a") == "stopped"


NO_WAY = "model 'b' cannot sleep: configure sleep, cmdSleep and cmdWake, or endpoints"


@pytest.mark.parametrize(
    ("action", "status", "message"),
    [
        (
            "sleep/b",
            409,
            NO_WAY,
        ),
        (
            "wake/b",
            409,
            NO_WAY,
        ),
        ("sleep/a", 409, "model 'a' is stopped: load it first"),
        ("wake/a", 409, "model 'a' is stopped: load it first"),
        ("load/no/such", 404, "no model is called 'no/such'"),
        ("sleep/no/such", 404, "no model is called 'no/such'"),
        ("unload/no/such", 404, "no model is called 'no/such'"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_reason(
    action: str, status: int, message: str
) -> None:
    """The error has OpenAI's form."""
    async with daemon({"a": stub(sleeps=True), "b": stub()}) as running:
        reply = await ask(running.port, "POST", f"/api/models/{action}")
        assert (reply.status, reply.json()["error"]["message"]) == (status, message)


async def test_a_sleep_that_fails_is_told_to_the_operator() -> None:
    """With curl -f, a 404 of the server is a failure; with plain curl it is not."""
    broken = stub(sleeps=True)
    broken["cmdSleep"] = "curl -fsS http://127.0.0.1:1/sleep"
    async with daemon({"a": broken}) as running:
        await chat(running.port, "a")
        reply = await ask(running.port, "POST", "/api/models/sleep/a")
        assert reply.status == 502
        assert "cmdSleep exited with status 7" in reply.json()["error"]["message"]
        assert running.state("a") == "stopped"


async def test_unloading_a_model_in_use_cuts_its_stream_and_waiters_are_told() -> None:
    """An operator's unload does not wait for requests."""
    async with daemon({"a": stub()}) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")

        async def stream() -> None:
            reply = await chat(running.port, "a", chunks=1000, pause=0.01)
            assert b'"error"' in reply.body

        nursery.start_soon(stream)
        await trio.sleep(0.1)
        with trio.fail_after(3):
            await ask(running.port, "POST", "/api/models/unload/a")
