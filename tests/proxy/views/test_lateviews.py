"""Views that are loaded on first use: several first requests, disconnects, and an early end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio

from proxy.http.http1 import Connection
from proxy.views.lateviews import Views
from tests.peers.client import Client, Reply, ask, chat
from tests.proxy.daemon import daemon, stub


@attrs.define(eq=False)
class Gate:
    """Blocks the loading, in its thread, until the test opens the gate."""

    times: int = 0
    _open: threading.Event = attrs.field(factory=threading.Event)

    def pass_through(self) -> None:
        self.times += 1
        self._open.wait(10)

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        with trio.fail_after(5):
            while not self.times:
                await trio.sleep(0.01)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Let loading take as long as the test needs."""
    gate, real = Gate(), Views._load

    def load(self: Views) -> Any:
        gate.pass_through()
        return real(self)

    monkeypatch.setattr(Views, "_load", load)
    yield gate
    gate.open()


async def test_views_are_loaded_once_for_all_who_ask_first(gate: Gate) -> None:
    """All first requests are served, and later requests too."""
    replies: list[Reply] = []

    async def visit(path: str) -> None:
        replies.append(await ask(running.port, "GET", path))

    async with daemon({"a": stub()}) as running:
        async with trio.open_nursery() as nursery:
            for path in ("/running", "/v1/models", "/running"):
                nursery.start_soon(visit, path)
            await gate.reached()
            await trio.sleep(0.1)
            assert not replies
            gate.open()
        await visit("/ready")
    assert [reply.status for reply in replies] == [200] * 4
    assert gate.times == 1


async def test_nobody_else_waits_for_views_that_are_loaded(gate: Gate) -> None:
    """Requests to models and probes are answered meanwhile."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            await client.send("GET", "/running")
            await gate.reached()
            with trio.fail_after(5):
                assert (await chat(running.port, "a")).status == 200
                assert (await ask(running.port, "GET", "/health")).status == 200
            gate.open()
            assert (await client.receive()).status == 200


async def test_without_a_view_none_is_loaded(gate: Gate) -> None:
    """Requests to models, probes, preflights and refusals need no view."""
    async with daemon({"a": stub()}, apiKeys=["sk-one"]) as running:
        headers = {"x-api-key": "sk-one"}
        body = {"model": "a"}
        assert (await ask(running.port, "POST", "/v1/completions", body, headers)).status == 200
        assert (await ask(running.port, "GET", "/upstream/a/x", b"", headers)).status == 200
        assert (await ask(running.port, "HEAD", "/health")).status == 200
        assert (await ask(running.port, "OPTIONS", "/running")).status == 204
        assert (await ask(running.port, "GET", "/running")).status == 401
    assert gate.times == 0


async def test_a_client_that_leaves_while_views_are_loaded_harms_nobody(gate: Gate) -> None:
    """The loading goes on and serves the next client."""
    async with daemon({"a": stub()}) as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as leaving:
            await leaving.send_all(b"GET /running HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await gate.reached()
        await trio.sleep(0.1)
        gate.open()
        assert (await ask(running.port, "GET", "/running")).status == 200
        assert b"failed" not in running.book.proxy.text()
    assert gate.times == 1


async def test_a_daemon_ends_in_its_time_while_views_are_loaded(gate: Gate) -> None:
    """The waiting request is cut after the grace, and the end waits no longer than that."""
    with trio.fail_after(5):
        async with daemon({"a": stub()}, grace=0.2) as running:
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            async with stream:
                await stream.send_all(b"GET /running HTTP/1.1\r\nhost: localhost\r\n\r\n")
                await gate.reached()
                running.stop.set()
                assert await stream.receive_some() == b""
            gate.open()


async def test_who_waits_for_a_view_at_the_end_is_served_in_the_grace(gate: Gate) -> None:
    """The request is treated like any request that began before the end."""
    async with daemon({"a": stub()}, grace=5) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            await client.send("GET", "/running")
            await gate.reached()
            running.stop.set()
            await trio.sleep(0.1)
            gate.open()
            reply = await client.receive()
    assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_views_that_cannot_be_loaded_end_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade may have replaced the files; the next request tries to load them again."""
    real = Views._load

    def fail(_: Views) -> Any:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(Views, "_load", fail)
    async with daemon({"a": stub()}) as running:
        with trio.fail_after(5):
            assert (await ask(running.port, "GET", "/running")).status == 500
            assert (await chat(running.port, "a")).status == 200
            assert (await ask(running.port, "GET", "/running")).status == 500
            monkeypatch.setattr(Views, "_load", real)
            assert (await ask(running.port, "GET", "/running")).status == 200


async def test_what_is_served_while_views_are_loaded_is_freed_later() -> None:
    """Only the loaded modules stay in memory."""
    gc.collect()
    async with daemon({"a": stub()}) as running:
        clients = [await Client.connect(running.port) for _ in range(20)]
        for client in clients:
            await client.ask("GET", "/health")
        await ask(running.port, "GET", "/running")
        for client in clients:
            await client.stream.aclose()
        await trio.sleep(0.2)
        gc.collect()
        gc.unfreeze()
        assert not [one for one in gc.get_objects() if type(one) is Connection]
