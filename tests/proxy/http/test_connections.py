"""The clients' connections: kept, closed, stalled, and cut when the daemon ends."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest
import trio

from proxy.http import http1
from proxy.http.addresses import Address, open_listeners
from proxy.http.exchange import Exchange
from proxy.http.listening import serve_http
from tests.peers.client import Client, ask, chat
from tests.proxy.certificates import contexts
from tests.proxy.daemon import daemon, stub
from tests.proxy.serving import ASK, serving

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = HEALTH.replace(b"GET /health", b"POST /v1/completions").replace(
    b"\r\n\r\n", b'\r\nContent-Length: 14\r\n\r\n{"model": "a"}'
)


async def closed_after(port: int, data: bytes, limit: float) -> float | None:
    """Return the seconds until the daemon closes the connection; None if it does not."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(data)
        began = time.monotonic()
        with trio.move_on_after(limit):
            while await stream.receive_some():
                pass
            return time.monotonic() - began
    return None


@pytest.mark.parametrize("data", [HEALTH, CHAT], ids=["view", "forwarded"])
async def test_an_idle_connection_is_closed_after_its_time(data: bytes) -> None:
    """The connection is not closed at once, but is closed eventually."""
    async with daemon({"a": stub()}, keep_alive=0.4) as running:
        await chat(running.port, "a")
        took = await closed_after(running.port, data, 3)
        assert took is not None
        assert 0.3 < took < 1.5


async def test_a_connection_that_says_nothing_is_closed_after_the_same_time() -> None:
    """The idle time starts with the connection; until it is over, a request may begin."""
    async with daemon({"a": stub()}, keep_alive=0.4) as running:
        took = await closed_after(running.port, b"", 3)
        assert took is not None
        assert 0.3 < took < 1.5
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await trio.sleep(0.2)
            await stream.send_all(HEALTH)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_begins_late_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of a head starts with the head's first byte, not with the connection."""
    monkeypatch.setattr(http1, "SLOWEST_HEAD", 0.5)
    async with daemon({"a": stub()}, keep_alive=0.6) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await trio.sleep(0.4)
            await stream.send_all(HEALTH[:20])
            await trio.sleep(0.3)
            await stream.send_all(HEALTH[20:])
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await stream.send_all(HEALTH[:20])
            began = time.monotonic()
            with trio.fail_after(3):
                assert await stream.receive_some() == b""
            assert 0.3 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("data", [HEALTH, CHAT], ids=["view", "forwarded"])
@pytest.mark.parametrize("how", ["close", "1.0"])
async def test_a_client_that_asks_for_the_end_gets_it(data: bytes, how: str) -> None:
    """The client sends Connection: close, or speaks HTTP/1.0."""
    if how == "close":
        data = data.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close")
    else:
        data = data.replace(b"HTTP/1.1\r\nHost: localhost", b"HTTP/1.0")
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        took = await closed_after(running.port, data, 3)
        assert took is not None
        assert took < 0.5


async def test_clients_that_go_away_leave_no_descriptor() -> None:
    """The descriptor is closed at once, not after the idle time."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        before = len(os.listdir("/proc/self/fd"))

        async def visit(number: int) -> None:
            client = await Client.connect(running.port)
            async with client.stream:
                await client.ask("GET", "/health")
                await trio.sleep(number % 5 / 1000)

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(visit, number)
        await trio.sleep(0.3)
        assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_clients_that_leave_at_any_moment_leave_no_lease() -> None:
    """Two hundred clients disconnect after 0 to 20 ms, some with a reset."""
    async with daemon({"a": stub(concurrencyLimit=500)}) as running:
        await chat(running.port, "a")

        async def leave(number: int) -> None:
            client = await Client.connect(running.port)
            if number % 3 == 0:
                linger = b"\1\0\0\0\0\0\0\0"
                client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            body = json.dumps({"model": "a", "chunks": 5, "pause": 0.002}).encode()
            await client.send("POST", "/v1/completions", body)
            await trio.sleep(number % 20 / 1000)
            await client.stream.aclose()

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(leave, number)
        with trio.fail_after(2):
            while running.supervisor.servers["a"].snapshot().in_flight:
                await trio.sleep(0.01)
        assert (await chat(running.port, "a")).status == 200


async def test_the_end_waits_for_streams_and_not_for_idle_connections() -> None:
    """A stream that ends within the grace is whole, and an idle client delays nothing."""
    async with daemon({"a": stub()}, grace=5) as running, trio.open_nursery() as nursery:
        await chat(running.port, "a")
        idle = await trio.open_tcp_stream("127.0.0.1", running.port)
        await idle.send_all(HEALTH)
        ends: list[float] = []

        async def stream() -> None:
            reply = await chat(running.port, "a", chunks=10, pause=0.03)
            assert reply.complete
            assert reply.body.count(b"data:") == 10
            ends.append(time.monotonic())

        nursery.start_soon(stream)
        await trio.sleep(0.1)
        began = time.monotonic()
        running.stop.set()
        await trio.sleep(0.05)
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", running.port)
        assert await idle.receive_some()
        with trio.fail_after(1):
            while await idle.receive_some():
                pass
        await idle.aclose()
        assert time.monotonic() - began < 1
    assert ends


@pytest.mark.parametrize("graceful", [True, False])
async def test_a_client_that_does_not_read_cannot_hold_up_the_end(graceful: bool) -> None:
    """The daemon closes the connection after the grace, or at once if it must end at once."""
    async with daemon({"a": stub()}, grace=0.3) as running:
        await chat(running.port, "a")
        client = await Client.connect(running.port)
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"model": "a", "raw": True, "x": "y" * 30_000_000}).encode()
        await client.send("POST", "/v1/completions", body)
        await trio.sleep(0.3)
        assert running.supervisor.servers["a"].snapshot().in_flight == 1
        if graceful:
            running.stop.set()
            with trio.fail_after(2):
                while running.supervisor.servers["a"].snapshot().in_flight:
                    await trio.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    await client.stream.aclose()


async def test_many_clients_at_once_are_all_accepted() -> None:
    """Five hundred clients connect at the same moment."""
    async with daemon({"a": stub()}) as running, trio.open_nursery() as nursery:

        async def visit() -> None:
            assert (await ask(running.port, "GET", "/health")).body == b"OK"

        for _ in range(500):
            nursery.start_soon(visit)


async def say_nothing(exchange: Exchange) -> None:
    await exchange.say(200, [], b"")


async def test_a_handshake_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Without the end, the client would have several seconds for the handshake."""
    tls, _ = contexts(tmp_path)
    with trio.fail_after(3):
        async with (
            serving(say_nothing, grace=9, tls=tls) as served,
            await served.connect() as stream,
        ):
            await trio.sleep(0.1)
            served.stop.set()
            assert await stream.receive_some() == b""


async def test_nor_does_a_handshake_that_is_over_after_the_end_was_told(tmp_path: Path) -> None:
    """The new connection accepts no request."""
    tls, trusting = contexts(tmp_path)

    async def begin(stream: trio.SocketStream) -> None:
        client = trio.SSLStream(stream, trusting, server_hostname="localhost")
        await client.do_handshake()
        await client.receive_some()

    with trio.fail_after(3):
        async with (
            serving(say_nothing, grace=9, tls=tls) as served,
            await served.connect() as stream,
        ):
            await trio.sleep(0.1)
            served.stop.set()
            await trio.sleep(0.1)
            with pytest.raises(trio.BrokenResourceError):
                await begin(stream)


@pytest.mark.parametrize("number", range(10))
async def test_what_arrives_at_the_moment_of_a_hard_end_is_no_fault(number: int) -> None:
    """Either the task of the end or the task of the connection may notice first."""
    [listener] = await open_listeners(Address("127.0.0.1", 0))
    address = listener.socket.getsockname()

    async def handle(exchange: Exchange) -> None:
        await trio.sleep_forever()

    clients = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(handle, [listener], stop=trio.Event(), grace=5))
        for _ in range(200):
            clients.append(client := socket.create_connection(address))
            client.send(ASK)
        await trio.sleep(0.3)
        for client in clients:
            client.send(ASK)
        nursery.cancel_scope.cancel()
    for client in clients:
        client.close()
