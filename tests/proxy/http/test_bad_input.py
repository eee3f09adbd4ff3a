"""Requests that cannot be served: the right status, OpenAI's form, and no side effects."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.peers.client import Client, ask, chat
from tests.proxy.daemon import Daemon, daemon, stub

CHAT = "/v1/chat/completions"


async def unharmed(running: Daemon) -> None:
    """Check that no request remains and that the next request is served."""
    assert running.supervisor.servers["a"].snapshot().in_flight == 0
    assert not list(running.supervisor._scheduler.waiting)
    assert (await chat(running.port, "a")).status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 404, "not_found"),
        (b"mode=a", 404, "not_found"),
        (b'{"model": "a"', 404, "not_found"),
        (b"\xff\xfe\x00", 404, "not_found"),
        (b"[" * 200_000, 404, "not_found"),
        (b"[]", 404, "not_found"),
        (b"{}", 404, "not_found"),
        (b'{"model": ""}', 404, "not_found"),
        (b'{"model": 7}', 404, "not_found"),
        (b'{"model": null}', 404, "not_found"),
        (b'{"model": "nope"}', 404, "not_found"),
        (b'{"model": "nope\\u0000\\ud800"}', 404, "not_found"),
        (b"x" * 10_000_000, 404, "not_found"),
        (json.dumps({"x": "y" * 10_000_000}).encode(), 404, "not_found"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_body_that_names_no_model_of_ours_is_refused(
    body: bytes, status: int, code: str
) -> None:
    """The connection stays open for the next request."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            reply = await client.ask("POST", CHAT, body)
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (status, code)
            assert reply.headers["content-type"] == "application/json"
            assert error["type"] == "invalid_request_error"
            assert set(error) == {"message", "type", "param", "code"}
            assert (await client.ask("POST", CHAT, {"model": "a"})).status == 200
        await unharmed(running)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/health", 405),
        ("POST", "/api/models/load/nope", 404),
        ("POST", "/api/models/dance/a", 404),
    ],
)
async def test_other_requests_get_their_status_in_the_same_form(
    method: str, path: str, status: int
) -> None:
    """The error is never an HTML page."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, method, path)
        assert reply.status == status
        assert reply.json()["error"]["message"]


async def test_more_requests_than_the_models_limit_get_429() -> None:
    """The answer has a Retry-After header."""
    async with daemon({"a": stub(concurrencyLimit=1)}) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")
        nursery.start_soon(_quietly, running.port, {"delay": 0.3})
        await trio.sleep(0.1)
        reply = await chat(running.port, "a")
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert reply.json()["error"]["code"] == "concurrency_limit"


async def _quietly(port: int, more: dict[str, Any]) -> None:
    await chat(port, "a", **more)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"POST /v1/chat/completions HT",
        b"",
        b"\x16\x03\x01garbage",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nmore",
    ],
    ids=range(8),
)
async def test_a_client_that_is_gone_halfway_or_speaks_nonsense_harms_nobody(sent: bytes) -> None:
    """Whatever the client sent, the daemon serves the next client."""
    async with daemon({"a": stub()}) as running:
        for _ in range(3):
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            await stream.send_all(sent)
            await trio.sleep(0.02)
            await stream.aclose()
        await unharmed(running)


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue() -> None:
    """The model does not start if no client waits for it."""
    async with daemon({"a": stub(), "b": stub()}) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")
        nursery.start_soon(_quietly, running.port, {"delay": 0.5})
        await trio.sleep(0.1)
        client = await Client.connect(running.port)
        await client.send("POST", CHAT, b'{"model": "b"}')
        await trio.sleep(0.1)
        assert [turn.server.model.id for turn in running.supervisor._scheduler.waiting] == ["b"]
        await client.stream.aclose()
        await trio.sleep(0.1)
        assert not list(running.supervisor._scheduler.waiting)
        await trio.sleep(0.5)
        assert running.state("b") == "stopped"
