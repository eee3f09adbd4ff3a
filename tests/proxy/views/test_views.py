"""What operators and pages read: lists, logs, events and metrics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio

from tests.peers.client import Client, ask, chat
from tests.proxy.daemon import daemon, stub


@asynccontextmanager
async def reading(port: int, path: str) -> AsyncIterator[Client]:
    """Yield a client that has read the head of an endless answer."""
    client = await Client.connect(port)
    async with client.stream:
        await client.send("GET", path)
        head = await client.event()
        assert isinstance(head, h11.Response)
        assert head.status_code == 200, head
        yield client


async def until(client: Client, words: bytes) -> bytes:
    """Read until these words arrive."""
    text = b""
    with trio.fail_after(5):
        while words not in text:
            event = await client.event()
            assert isinstance(event, h11.Data), event
            text += event.data
    return text


async def test_models_are_listed_with_all_that_is_known_of_them() -> None:
    """The fields are llama-swap's; aliases get their own rows if this is configured."""
    capabilities = {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 4096}
    models = {
        "a": stub(aliases=["x"], capabilities=capabilities, metadata={"k": 1, "type": "mine"}),
        "b": stub(metadata={"context_length": 7}),
    }
    selectors = {"s": {"strategy": "warm", "targets": ["a", "b"], "name": "Any"}}
    async with daemon(models, selectors=selectors, includeAliasesInList=True) as running:
        await chat(running.port, "a")
        reply = await ask(running.port, "GET", "/models", b"", {"origin": "http://page"})
        assert reply.headers["access-control-allow-origin"] == "*"
        rows = {row["id"]: row for row in reply.json()["data"]}
        assert list(rows) == ["a", "b", "s", "x"]
        assert rows["a"]["status"] == {"value": "loaded"}
        assert rows["a"]["meta"]["llamaswap"] == {"k": 1, "type": "model", "aliases": ["x"]}
        assert rows["a"]["architecture"]["modality"] == "text+image->text"
        assert rows["a"]["capabilities"]["vision"] is True
        assert rows["a"]["supported_parameters"] == ["tools", "tool_choice"]
        assert (rows["a"]["context_length"], rows["a"]["meta"]["n_ctx"]) == (4096, 4096)
        assert (rows["b"]["context_length"], rows["b"]["status"]) == (7, {"value": "unloaded"})
        assert rows["x"]["meta"]["llamaswap"]["modelID"] == "a"
        assert (rows["s"]["name"], rows["s"]["status"]) == ("Any", {"value": "loaded"})
        assert rows["s"]["meta"]["llamaswap"]["targets"] == ["a", "b"]


@pytest.mark.parametrize("how", [("GET", "/unload"), ("POST", "/api/models/unload")])
async def test_all_models_are_unloaded_at_once(how: tuple[str, str]) -> None:
    """The answer comes after the models have stopped."""
    groups = {"g": {"swap": False, "members": ["a", "b"]}}
    async with daemon({"a": stub(), "b": stub()}, groups=groups) as running:
        for name in "ab":
            await chat(running.port, name)
        reply = await ask(running.port, *how)
        assert reply.body == (b"OK" if how[0] == "GET" else b'{"msg":"ok"}\n')
        assert [running.state(name) for name in "ab"] == ["stopped", "stopped"]


async def test_ready_says_whether_a_request_would_be_served() -> None:
    """Stopped models do not matter; during a pause, clients should use another daemon."""
    async with daemon({"a": stub()}) as running:
        assert (await ask(running.port, "GET", "/ready")).status == 200
        await ask(running.port, "POST", "/api/pause")
        reply = await ask(running.port, "GET", "/ready")
        assert (reply.status, reply.json()["paused"]) == (503, True)


async def test_metrics_count_requests_tokens_and_steps() -> None:
    """The labels are model and status; unknown names share one label."""
    usage = '"usage": {"prompt_tokens": 3, "completion_tokens": 4}'
    body = f'{{"model": "a", "raw": true, {usage}}}'.encode()
    models = {"a": stub(sleeps=True), "b": stub("--exit", "3")}
    async with daemon(models) as running:
        await chat(running.port, "b")
        for _ in range(2):
            await ask(running.port, "POST", "/v1/completions", body)
        await ask(running.port, "POST", "/api/models/sleep/a")
        for name in ("nobody-1", "nobody-2", "a"):
            await chat(running.port, name)
        reply = await ask(running.port, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = set(reply.body.decode().splitlines())
    assert lines >= {
        'llamadoze_requests_total{model="a",status="200"} 3.0',
        'llamadoze_requests_total{model="b",status="502"} 1.0',
        'llamadoze_requests_total{model="(unknown)",status="404"} 2.0',
        'llamadoze_tokens_total{kind="prompt",model="a"} 6.0',
        'llamadoze_tokens_total{kind="generated",model="a"} 8.0',
        'llamadoze_model_failures_total{model="b",reason="start"} 1.0',
        'llamadoze_model_step_duration_seconds_count{model="a",step="sleep"} 1.0',
        'llamadoze_model_step_duration_seconds_count{model="a",step="wake"} 1.0',
        'llamadoze_model_step_duration_seconds_count{model="a",step="start"} 1.0',
        'llamadoze_model_state{model="a",state="ready"} 1.0',
        'llamadoze_model_state{model="b",state="failed"} 1.0',
        'llamadoze_requests_in_flight{model="a"} 0.0',
        'llamadoze_time_to_first_byte_seconds_bucket{le="+Inf",model="a"} 3.0',
    }
    assert not [line for line in lines if "nobody" in line]
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


async def test_a_models_output_is_read_as_it_comes() -> None:
    """Earlier output comes first, unless `no-history` is set; the stream ends with the daemon."""
    models = {"org/a": stub("--ready-after", "0.1", aliases=["al"], cmdStop="echo stopping")}
    async with (
        daemon(models, logToStdout="both") as running,
        reading(running.port, "/logs/stream/al") as own,
        reading(running.port, "/logs/stream/upstream?no-history") as every,
    ):
        await trio.sleep(0.05)  # so that the second client, which gets no history, listens
        await chat(running.port, "org/a", die=4)
        for client in (own, every):
            assert b"told to die" in await until(client, b"told to die\n")
        async with reading(running.port, "/logs/stream/org/a") as later:
            assert b"told to die" in await until(later, b"told to die\n")
        running.stop.set()
        await until_end(own)


async def test_nobodys_log_is_refused() -> None:
    """llama-swap refuses an unknown name in the same way."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "GET", "/logs/stream/nobody")
        assert reply.status == 400
        assert (
            (await ask(running.port, "GET", "/logs"))
            .headers["content-type"]
            .startswith("text/plain")
        )


def messages(text: bytes) -> list[tuple[str, Any]]:
    """Return the type and the data of each event."""
    found = []
    for block in text.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        assert name == "event:message"
        whole = json.loads(data.removeprefix("data:"))
        found.append((whole["type"], json.loads(whole["data"])))
    return found


async def test_events_tell_how_all_stands_and_what_happens() -> None:
    """The form is llama-swap's, except for leases: first seven messages, then changes."""
    profiles = {"p": {"pins": {"x": "a"}}}
    async with (
        daemon({"a": stub()}, profiles=profiles) as running,
        reading(running.port, "/api/events") as client,
    ):
        first = messages(await until(client, b'\\"operation\\": \\"snapshot\\"'))
        kinds = [kind for kind, _ in first]
        assert kinds == [
            *("logData", "logData", "modelStatus", "uiConfig", "profileChanged"),
            *("lease", "inflight"),
        ]
        assert [(row["id"], row["state"]) for row in first[2][1]] == [("a", "stopped")]
        await ask(running.port, "POST", "/v1/completions", {"model": "a"}, {"cookie": "secret"})
        seen = messages(await until(client, b'"activity"'))
        states = [data[0]["state"] for kind, data in seen if kind == "modelStatus"]
        assert states == ["starting", "ready"]
        calls = [data for kind, data in seen if kind == "inflight"]
        assert [call["operation"] for call in calls] == ["upsert", "remove"]
        request = calls[0]["request"]
        assert (request["req_path"], request["remote_ip"]) == ("/v1/completions", "127.0.0.1")
        assert request["req_headers"]["cookie"] == "[redacted]"
        await ask(running.port, "PUT", "/api/profiles/active", {"name": "p"})
        told = messages(await until(client, b"profileChanged"))
        assert ("profileChanged", {"active": "p"}) in told
        running.stop.set()
        await until_end(client)


async def until_end(client: Client) -> None:
    with trio.fail_after(3):
        while not isinstance(await client.event(), h11.EndOfMessage):
            pass


async def test_listeners_that_leave_are_forgotten() -> None:
    """This applies to listeners of events and of logs."""
    async with daemon({"a": stub()}) as running:
        for path in ("/api/events", "/logs/stream", "/logs/stream/a"):
            async with reading(running.port, path):
                await trio.sleep(0.05)
        with trio.fail_after(2):
            while running.book._listeners or running.book._readers:
                await trio.sleep(0.01)
