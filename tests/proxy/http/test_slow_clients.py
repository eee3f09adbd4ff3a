"""Slow clients, and too many connections."""

from __future__ import annotations

import errno
import resource
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from proxy.http.addresses import Address, open_listeners
from proxy.http.exchange import Exchange, Handler
from proxy.http.http1 import Connection
from proxy.http.listening import Connections, serve_http
from tests.peers.client import ask
from tests.proxy.daemon import Daemon, daemon, stub
from tests.proxy.serving import ASK, serving

LARGE = b'{"model": "a", "raw": true, "x": "' + b"x" * (8 << 20) + b'"}'


def large_request(version: str) -> bytes:
    head = f"POST /v1/completions HTTP/{version}\r\nhost: localhost\r\ncontent-length: {len(LARGE)}"
    return f"{head}\r\n\r\n".encode() + LARGE


async def stalled(running: Daemon) -> trio.SocketStream:
    """Request a large answer, and read none of it."""
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    await stream.send_all(large_request("1.1"))
    return stream


async def test_a_client_that_reads_nothing_is_cut_after_its_time() -> None:
    """After clientTimeout, the model is free."""
    async with daemon({"a": stub()}, clientTimeout=1) as running:
        stream = await stalled(running)
        async with stream:
            with trio.fail_after(10):
                while not running.in_use("a"):
                    await trio.sleep(0.02)
                while running.in_use("a"):
                    await trio.sleep(0.02)


async def test_a_client_that_reads_again_in_time_gets_all() -> None:
    """A pause shorter than clientTimeout does no harm."""
    async with daemon({"a": stub()}, clientTimeout=5) as running:
        stream = await stalled(running)
        await trio.sleep(1)
        size = 0
        async with stream:
            while size < len(LARGE) and (piece := await stream.receive_some()):
                size += len(piece)
        assert size >= len(LARGE)


async def test_a_client_that_reads_slowly_and_steadily_is_not_cut() -> None:
    """clientTimeout applies only to a client that reads nothing."""
    async with daemon({"a": stub()}, clientTimeout=2) as running:
        stream = await stalled(running)
        async with stream:
            size, began = 0, time.monotonic()
            while size < len(LARGE) and (piece := await stream.receive_some(65536)):
                size += len(piece)
                await trio.sleep(0.1 if time.monotonic() - began < 8 else 0)
        assert size >= len(LARGE)


async def answers(handle: Handler, request: bytes) -> bytes:
    """Return the bytes until the connection ends; a connection error is marked as `<reset>`."""
    [listener] = await open_listeners(Address("127.0.0.1", 0))
    port, stop, said = listener.socket.getsockname()[1], trio.Event(), b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(handle, [listener], stop=stop, grace=0.2))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            try:
                while piece := await stream.receive_some():
                    said += piece
            except trio.BrokenResourceError:
                said += b"<reset>"
        stop.set()
    return said


async def until_end(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


OLD = b"GET / HTTP/1.0\r\n\r\n"


async def test_a_cut_answer_is_no_whole_one_to_http_1_0() -> None:
    """A normal close would look like the answer's end; nginx uses HTTP/1.0 by default."""

    async def cut(exchange: Exchange) -> None:
        exchange.begin(200, [])
        await exchange.write(b"half")
        await trio.sleep(0.1)  # so that the half arrives before the reset
        raise RuntimeError("cut")

    async def whole(exchange: Exchange) -> None:
        exchange.begin(200, [])
        await exchange.write(b"whole", last=True)

    assert (await answers(cut, OLD)).endswith(b"half<reset>")
    assert (await answers(whole, OLD)).endswith(b"whole")


async def test_the_daemons_end_is_no_end_of_an_answer() -> None:
    """A stream that is cut when the daemon ends is reset too."""

    async def endless(exchange: Exchange) -> None:
        exchange.begin(200, [])
        while True:
            await exchange.write(b"x")
            await trio.sleep(0.05)

    [listener] = await open_listeners(Address("127.0.0.1", 0))
    port, stop = listener.socket.getsockname()[1], trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(endless, [listener], stop=stop, grace=0.1))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(OLD)
            await stream.receive_some()
            stop.set()
            with pytest.raises(trio.BrokenResourceError):
                await until_end(stream)


def connection() -> Connection:
    return Connection(None, None, None, None)  # type: ignore[arg-type]  # it is never served


async def test_the_connection_that_is_idle_longest_goes_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A new connection stays, because its request is about to arrive."""
    connections = Connections(most=2)
    first, second = connection(), connection()
    with connections.listed(first), connections.listed(second):
        await trio.sleep(5)
        second._idle_since = trio.current_time() - 3
        first._idle_since = trio.current_time() - 2
        connections.let_one_go("a test")
        assert second._life.cancel_called
        assert not first._life.cancel_called


async def test_who_has_just_sent_something_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence before does not count."""
    listed, real = [], Connections.listed

    def note(self: Connections, one: Connection) -> Any:
        listed.append(one)
        return real(self, one)

    async def handle(exchange: Exchange) -> None:
        while await exchange.read():
            pass

    monkeypatch.setattr(Connections, "listed", note)
    async with serving(handle) as served, await served.connect() as client:
        await trio.sleep(2)
        await client.send_all(ASK.replace(b"\r\n\r\n", b"\r\ncontent-length: 9\r\n\r\nx"))
        await trio.sleep(0.1)
        assert listed[0].idle_for(trio.current_time()) < 1


async def test_room_is_waited_for_and_those_that_arrive_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A connection in its handshake takes a descriptor too."""
    connections = Connections(most=1)
    connections.opened()
    with trio.move_on_after(3) as scope:
        await connections.make_room()
    assert scope.cancelled_caught
    connections.closed()
    await connections.make_room()


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EMFILE])
async def test_a_failed_accept_ends_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2): most errors concern one client, so the daemon tries again."""
    real, failures = socket.socket.accept, [number]

    def accept(self: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise OSError(failures.pop(), "accept failed")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    async with daemon({"a": stub()}) as running:
        with trio.fail_after(5):
            assert (await ask(running.port, "GET", "/health")).status == 200
        assert not failures


async def test_many_headers_are_refused() -> None:
    """Each header costs more memory than its bytes."""
    fields = "".join(f"x-{number}: y\r\n" for number in range(2500))
    request = f"GET /health HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n".encode()
    async with (
        daemon({"a": stub()}) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        await stream.send_all(request)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 431 ")


async def test_requests_that_do_not_arrive_make_room_for_those_that_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused requests whose rest is still to come make room too."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    stuck = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
    for keys in ([], ["sk-1"]):
        async with daemon({"a": stub()}, apiKeys=keys) as running, AsyncExitStack() as stack:
            for _ in range(20):
                stream = await trio.open_tcp_stream("127.0.0.1", running.port)
                await (await stack.enter_async_context(stream)).send_all(stuck)
            with trio.fail_after(10):
                assert (await ask(running.port, "GET", "/health")).status == 200
