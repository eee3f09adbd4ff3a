"""Requests and states in the words of llama.cpp's router and of newer llama-swap."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.peers.client import Reply, ask, chat
from tests.proxy.daemon import Daemon, daemon, stub


async def status(running: Daemon, name: str) -> str:
    rows = (await ask(running.port, "GET", "/v1/models")).json()["data"]
    (found,) = (row["status"]["value"] for row in rows if row["id"] == name)
    return str(found)


async def until(running: Daemon, name: str, word: str) -> None:
    with trio.fail_after(10):
        while await status(running, name) != word:
            await trio.sleep(0.02)


async def post(running: Daemon, path: str, body: object) -> Reply:
    return await ask(running.port, "POST", path, body)


async def test_a_model_stands_in_llama_cpps_words() -> None:
    """The words cover a model from its start to its sleep and back."""
    models = {"a": stub("--ready-after", "0.5", sleeps=True), "b": stub("--exit", "3")}
    async with daemon(models) as running, trio.open_nursery() as nursery:
        assert await status(running, "a") == "unloaded"
        nursery.start_soon(chat, running.port, "a")
        await until(running, "a", "loading")
        await until(running, "a", "loaded")
        await ask(running.port, "POST", "/api/models/sleep/a")
        assert await status(running, "a") == "sleeping"
        await ask(running.port, "POST", "/api/models/wake/a")
        assert await status(running, "a") == "loaded"
        await ask(running.port, "POST", "/api/models/unload/a")
        assert await status(running, "a") == "unloaded"


async def test_falling_asleep_and_waking_have_their_words() -> None:
    """A model that falls asleep counts as sleeping, and a model that wakes counts as loading."""
    slow = stub(cmdSleep="sleep 0.4", cmdWake="sleep 0.4")
    async with daemon({"a": slow}) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")
        nursery.start_soon(ask, running.port, "POST", "/api/models/sleep/a")
        await until(running, "a", "sleeping")
        assert running.state("a") == "sleepPending"
        await until_asleep(running)
        nursery.start_soon(ask, running.port, "POST", "/api/models/wake/a")
        await until(running, "a", "loading")
        await until(running, "a", "loaded")


async def until_asleep(running: Daemon) -> None:
    with trio.fail_after(10):
        while running.state("a") != "asleep":
            await trio.sleep(0.02)


async def test_a_failed_model_is_unloaded() -> None:
    """There is no other word for a failure, and a client may request the model again."""
    async with daemon({"a": stub("--exit", "3")}) as running:
        assert (await chat(running.port, "a")).status == 502
        assert running.state("a") == "failed"
        assert await status(running, "a") == "unloaded"


async def test_a_model_is_loaded_by_its_name_in_a_body() -> None:
    """The name is an id or an alias; the model may already be loaded or asleep."""
    async with daemon({"org/a": stub(sleeps=True, aliases=["x"])}) as running:
        for name in ("org/a", "x", "org/a"):
            reply = await post(running, "/models/load", {"model": name})
            assert (reply.status, reply.json()) == (200, {"success": True})
            assert running.state("org/a") == "ready"
            await ask(running.port, "POST", "/api/models/sleep/x")


@pytest.mark.parametrize("name", ["org/a", "x"])
async def test_eject_puts_to_sleep_what_can_sleep(name: str) -> None:
    """The process lives on, and the next load is a wake."""
    async with daemon({"org/a": stub(sleeps=True, aliases=["x"])}) as running:
        await chat(running.port, "org/a")
        pid = running.pid("org/a")
        for _ in range(2):
            reply = await post(running, "/models/unload", {"model": name})
            assert (reply.status, reply.json()) == (200, {"success": True})
            assert running.state("org/a") == "asleep"
        await post(running, "/models/load", {"model": name})
        assert (running.state("org/a"), running.pid("org/a")) == ("ready", pid)


async def test_eject_stops_what_cannot_sleep() -> None:
    """A repeated eject does no harm."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        for _ in range(2):
            assert (await post(running, "/models/unload", {"model": "a"})).status == 200
            assert running.state("a") == "stopped"


async def test_eject_of_a_model_that_was_never_up_does_nothing() -> None:
    """This also applies to a model that can sleep."""
    async with daemon({"a": stub(sleeps=True)}) as running:
        assert (await post(running, "/models/unload", {"model": "a"})).status == 200
        assert running.state("a") == "stopped"


async def test_eject_ends_a_start() -> None:
    """The user no longer wants to wait for the start."""
    models = {"a": stub("--ready-after", "60", sleeps=True)}
    async with daemon(models) as running, trio.open_nursery() as nursery:
        nursery.start_soon(post, running, "/models/load", {"model": "a"})
        await until(running, "a", "loading")
        with trio.fail_after(10):
            assert (await post(running, "/models/unload", {"model": "a"})).status == 200
        assert running.state("a") == "stopped"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"model": "nobody"}', 404),
        (b'{"model": "A"}', 404),
        (b"{}", 400),
        (b'{"model": ""}', 400),
        (b'{"model": null}', 400),
        (b'{"model": 5}', 400),
        (b'{"model": ["a"]}', 400),
        (b'{"name": "a"}', 400),
        (b'["a"]', 400),
        (b'"a"', 400),
        (b"", 400),
        (b"not JSON", 400),
        (b'{"model": "a"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b"[" * 100_000, 413),
    ],
)
async def test_a_body_that_names_no_model_is_refused(path: str, body: bytes, answer: int) -> None:
    """The error says what is expected, and nothing happens."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", path, body)
        assert reply.status == answer
        error = reply.json()["error"]
        assert ('{"model": NAME}' if answer == 400 else "model") in error["message"]
        assert running.state("a") == "stopped"


async def test_beyond_the_global_limit_is_refused_at_once() -> None:
    """The limit counts the requests of all models; later requests succeed."""
    groups = {"g": {"swap": False, "members": ["a", "b"]}}
    models = {"a": stub(), "b": stub()}
    async with daemon(models, groups=groups, globalConcurrencyLimit=2) as running:
        for name in "ab":
            assert (await chat(running.port, name)).status == 200
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(lambda one: chat(running.port, one, delay=1), name)
            await in_use(running, "ab")
            began = trio.current_time()
            reply = await chat(running.port, "a")
            assert trio.current_time() - began < 0.5
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert reply.json()["error"]["code"] == "concurrency_limit"
        assert "globalConcurrencyLimit" in reply.json()["error"]["message"]
        assert [(await chat(running.port, name)).status for name in "ab"] == [200, 200]


async def in_use(running: Daemon, names: str) -> None:
    with trio.fail_after(5):
        while not all(map(running.in_use, names)):
            await trio.sleep(0.01)


async def test_those_who_wait_for_a_model_count_in_the_global_limit() -> None:
    """A request counts from its beginning; views do not count."""
    models = {"a": stub("--ready-after", "1")}
    async with daemon(models, globalConcurrencyLimit=1) as running, trio.open_nursery() as nursery:
        nursery.start_soon(chat, running.port, "a")
        await until(running, "a", "loading")
        assert (await chat(running.port, "a")).status == 429
        assert (await ask(running.port, "GET", "/health")).status == 200
        assert (await chat(running.port, "nobody")).status == 404
        await until(running, "a", "loaded")


async def test_a_client_that_leaves_makes_room_in_the_global_limit() -> None:
    """A refused request does not count either."""
    async with daemon({"a": stub()}, globalConcurrencyLimit=1) as running:
        await chat(running.port, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: chat(running.port, "a", delay=30))
            await in_use(running, "a")
            assert [(await chat(running.port, "a")).status for _ in range(3)] == [429] * 3
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            while (await chat(running.port, "a")).status != 200:
                await trio.sleep(0.02)


async def test_a_profile_is_in_use_from_the_start() -> None:
    """You can activate another profile later."""
    profiles = {"p": {"pins": {"x": "a", "b": None}}, "q": {"pins": {"x": "b"}}}
    hooks = {"on_startup": {"profile": "p"}}
    async with daemon({"a": stub(), "b": stub()}, profiles=profiles, hooks=hooks) as running:
        assert (await chat(running.port, "x")).status == 200
        assert (running.state("a"), running.state("b")) == ("ready", "stopped")
        assert (await chat(running.port, "b")).status == 404
        await ask(running.port, "PUT", "/api/profiles/active", {"name": "q"})
        assert (await chat(running.port, "x")).status == 200
        assert running.state("b") == "ready"


async def test_without_that_hook_no_profile_is_in_use() -> None:
    """The hook is optional."""
    async with daemon({"a": stub()}, profiles={"p": {"pins": {"x": "a"}}}) as running:
        assert (await chat(running.port, "x")).status == 404


@pytest.mark.parametrize(
    ("keys", "host"),
    [({}, "localhost"), ({"hostHeader": "llm.internal"}, "llm.internal"), ({"hostHeader": 5}, "5")],
)
async def test_the_host_that_a_model_server_reads(keys: dict[str, Any], host: str) -> None:
    """The only Host header is the client's own or the configured one."""
    async with daemon({"a": stub(**keys)}) as running:
        headers = [line.lower() for line in (await chat(running.port, "a")).json()["headers"]]
        assert [line for line in headers if line.startswith("host:")] == [f"host: {host}"]
        raw = await ask(running.port, "GET", "/upstream/a/x", b"", {"host": "127.0.0.1"})
        told = [line.lower() for line in raw.json()["headers"] if line.lower().startswith("host:")]
        assert told == [f"host: {host if keys else '127.0.0.1'}"]


SOFT = {"setParams": {"max_tokens?": 4096, "chat.effort?": "low", "stop?": ["x"]}}


@pytest.mark.parametrize(
    ("sent", "added"),
    [
        ("", {"max_tokens": 4096, "chat": {"effort": "low"}, "stop": ["x"]}),
        ('"max_tokens": 5, ', {"chat": {"effort": "low"}, "stop": ["x"]}),
        ('"max_tokens": null, "stop": [], ', {"chat": {"effort": "low"}}),
        ('"chat": {"effort": ""}, "stop": 0, "max_tokens": 0, ', {}),
    ],
)
async def test_a_soft_default_fills_only_what_is_missing(sent: str, added: dict[str, Any]) -> None:
    """The bytes that the client sent stay unchanged."""
    text = f'{{"model": "a", {sent}"raw": true,  "temperature": 1.50, "n": 1E2, "s": "\\u00fc"}}'
    async with daemon({"a": stub(filters=SOFT)}) as running:
        reply = await ask(running.port, "POST", "/v1/chat/completions", text.encode())
    seen = reply.body.decode()
    assert json.loads(seen) == {**json.loads(text), **added}
    for piece in ('"temperature": 1.50, "n": 1E2', '"s": "\\u00fc"', '"raw": true,  "t', sent):
        assert piece in seen
    assert added or seen == text


async def test_a_soft_default_beside_what_the_client_has_in_the_same_object() -> None:
    """Only the missing key is added to the object."""
    async with daemon({"a": stub(filters=SOFT)}) as running:
        more = {"chat": {"other": 1}, "raw": True}
        seen = (await chat(running.port, "a", **more)).json()
    assert seen["chat"] == {"other": 1, "effort": "low"}
