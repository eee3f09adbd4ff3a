"""Views behind ASGI: what they receive, what they send, and when a view's call ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from proxy.http.exchange import Exchange
from proxy.views.throughasgi import Application, serve
from tests.peers.client import Client
from tests.proxy.daemon import daemon, stub
from tests.proxy.serving import ASK, Served, serving

MARK = (b"x-mark", b"ours")


async def through(application: Application, exchange: Exchange) -> None:
    await serve(application, exchange, exchange.path, [MARK])


async def read_until(client: trio.SocketStream, words: bytes) -> bytes:
    said = b""
    with trio.fail_after(3):
        while words not in said:
            piece = await client.receive_some()
            assert piece, said
            said += piece
    return said


async def said_by(served: Served, request: bytes, words: bytes) -> bytes:
    """Return the bytes until these words arrive; then the client disconnects."""
    async with await served.connect() as client:
        await client.send_all(request)
        return await read_until(client, words)


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_comes_in_parts_is_told_of_in_parts(framing: str) -> None:
    """The last part is marked; after it, the view can only wait for the client to disconnect."""
    told: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while not told or told[-1]["more_body"]:
            told.append(await receive())
        with trio.move_on_after(0.1) as nothing:
            await receive()
        assert nothing.cancelled_caught
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    head = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
    if framing == "length":
        parts = [head + b"content-length: 6\r\n\r\n", b"ab", b"cd", b"ef"]
    else:
        parts = [head + b"transfer-encoding: chunked\r\n\r\n", b"4\r\nabcd\r\n", b"2\r\nef\r\n"]
        parts.append(b"0\r\n\r\n")
    async with (
        serving(partial(through, application)) as served,
        await served.connect() as client,
    ):
        for part in parts:
            await client.send_all(part)
            await trio.sleep(0.05)
        await read_until(client, b"done")
    assert b"".join(one["body"] for one in told) == b"abcdef"
    assert len(told) > 2
    assert [one["more_body"] for one in told] == [True] * (len(told) - 1) + [False]


async def test_a_views_body_may_come_byte_for_byte() -> None:
    """A client far away may send so slowly."""
    head = b"POST /models/load HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\n\r\n"
    async with (
        daemon({"a": stub()}) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as client,
    ):
        await client.send_all(head)
        for byte in b'{"model": "a"}':
            await client.send_all(bytes([byte]))
            await trio.sleep(0.01)
        with trio.fail_after(5):
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert running.state("a") == "ready"


async def test_a_stream_begins_at_once_and_ends_with_its_client() -> None:
    """When the client disconnects, the call of the view is cancelled and can clean up."""
    ended, asked = trio.Event(), trio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
            await send(start)
            await asked.wait()
            await send({"type": "http.response.body", "body": b"word", "more_body": True})
            await receive()
        finally:
            ended.set()

    async with serving(partial(through, application)) as served:
        async with await served.connect() as client:
            await client.send_all(ASK)
            head = await read_until(client, b"\r\n\r\n")
            asked.set()
            assert await read_until(client, b"word") == b"4\r\nword\r\n"
            assert not ended.is_set()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\na: b\r\n" in head
        assert b"\r\nx-mark: ours\r\n" in head
        assert b"\r\ncache-control: no-store\r\n" in head
        with trio.fail_after(3):
            await ended.wait()


@pytest.mark.parametrize("path", ["/", "/v1/models", "/running", "/nothing"])
async def test_the_head_of_a_view_is_that_of_its_answer(path: str) -> None:
    """The head has the length of the missing body, and the connection stays open."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            whole = await client.ask("GET", path)
            for _ in range(2):
                head = await client.ask("HEAD", path)
                assert (head.status, head.body) == (whole.status, b"")
                assert head.headers["content-type"] == whole.headers["content-type"]
            if whole.status == 200:
                assert head.headers["content-length"] == str(len(whole.body))


async def test_a_stream_asked_for_by_head_ends_with_its_head() -> None:
    """The endless body does not begin."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            for path in ("/logs/stream", "/api/events"):
                with trio.fail_after(3):
                    assert (await client.ask("HEAD", path)).status == 200
            assert (await client.ask("GET", "/health")).body == b"OK"


async def test_an_answer_that_can_have_no_body_has_no_length() -> None:
    """It has no chunks either (RFC 9110, 8.6; RFC 9112, 6.1), and the connection stays open."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            for _ in range(2):
                reply = await client.ask("GET", "/favicon.ico")
                assert (reply.status, reply.body) == (204, b"")
                assert not {"content-length", "transfer-encoding"} & set(reply.headers)
            assert (await client.ask("GET", "/ready")).status == 200


async def test_a_view_that_fails_ends_its_own_request_only() -> None:
    """The client gets an error, and the connections of other clients go on."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise RuntimeError("a fault")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"good"})

    async with serving(partial(through, application)) as served, await served.connect() as other:
        bad = await said_by(served, ASK.replace(b"/", b"/bad", 1), b"internal error")
        assert bad.startswith(b"HTTP/1.1 500 ")
        await other.send_all(ASK)
        assert b"good" in await read_until(other, b"good")


async def test_a_views_addresses_are_the_clients() -> None:
    """ASGI 3.0: the scope has the client, the server, the method and the path."""
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving(partial(through, application)) as served:
        await said_by(served, ASK.replace(b"/", b"/a%20b?q=1", 1), b"\r\n\r\n")
    (scope,) = scopes
    assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "GET", "http")
    assert (scope["path"], scope["query_string"]) == ("/a b", b"q=1")
    assert scope["client"][0] == "127.0.0.1"
    assert scope["server"] == ("127.0.0.1", served.port)
    assert (b"host", b"localhost") in scope["headers"]
