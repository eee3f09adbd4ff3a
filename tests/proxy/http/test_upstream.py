"""The client for model servers, against a scripted peer that sends bytes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from configschema import Timeouts
from configschema.keys.fields import AnySeconds
from proxy.http import upstream as upstream_module
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.parsing import LONGEST_HEAD, ResponseParser, UpstreamError
from proxy.http.upstream import Upstream

OK = b"HTTP/1.1 200 OK\r\n"


@attrs.define(eq=False)
class Peer:
    """A server on a real socket, with one script of answers for each connection."""

    scripts: list[list[bytes]]
    port: int = 0
    requests: list[bytes] = attrs.field(factory=list)
    connections: int = 0
    reads: bool = True

    async def serve(self, stream: trio.SocketStream) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                for answer in script:
                    if self.reads and not await self._request(stream):
                        return
                    await stream.send_all(answer)
                if not self.reads:
                    await trio.sleep_forever()

    async def _request(self, stream: trio.SocketStream) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := await stream.receive_some()):
                return False
            data += bytes(piece)
        self.requests.append(data)
        return True


@asynccontextmanager
async def peer(*scripts: list[bytes], reads: bool = True) -> AsyncIterator[tuple[Peer, Upstream]]:
    played = Peer(list(scripts), reads=reads)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, played.serve, 0)
        played.port = listeners[0].socket.getsockname()[1]
        upstream = Upstream(Origin("127.0.0.1", played.port))
        yield played, upstream
        upstream.close()
        nursery.cancel_scope.cancel()


async def ask(upstream: Upstream, body: bytes = b"{}") -> tuple[int, bytes]:
    with trio.fail_after(5):
        request = Request(method=b"POST", target=b"/x", headers=[(b"host", b"h")], body=body)
        with await upstream.exchange(request) as response:
            body = b""
            while piece := await response.read():
                body += piece
            return response.status, body


SIZED = OK + b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nt: v\r\n\r\n"
TO_THE_END = OK + b"\r\nhi"


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, TO_THE_END, b"HTTP/1.1 100 C\r\n\r\n" + SIZED])
async def test_every_framing_gives_the_same_body(answer: bytes) -> None:
    """The body ends by length, chunks or the connection's end; an interim answer may precede it."""
    async with peer([answer]) as (_, upstream):
        assert await ask(upstream) == (200, b"hi")


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"HTTP/1.1 204 X\r\n\r\n", 204), (b"HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\n", 304)],
)
async def test_answers_that_have_no_body_end_at_their_head(answer: bytes, status: int) -> None:
    """204 and 304 have no body, whatever length they claim (RFC 9110, 15.3.5 and 15.4.5)."""
    async with peer([answer]) as (_, upstream):
        assert await ask(upstream) == (status, b"")


@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=20))
def test_the_split_of_the_bytes_changes_nothing(cuts: list[int]) -> None:
    """The network may cut an answer anywhere."""
    edges = [0, *sorted(set(cuts)), len(CHUNKED)]
    parser = ResponseParser()
    body = b"".join(parser.feed(CHUNKED[start:end]) for start, end in itertools.pairwise(edges))
    assert (parser.status, body, parser.done) == (200, b"hi", True)
    assert parser.headers == [(b"transfer-encoding", b"chunked")]


async def test_a_connection_is_used_again() -> None:
    """Ten exchanges use one connection."""
    async with peer([SIZED] * 10) as (played, upstream):
        for _ in range(10):
            assert await ask(upstream) == (200, b"hi")
        assert played.connections == 1


@attrs.define(eq=False)
class Crowd:
    """A server that answers once `wanted` requests have arrived; it counts its connections."""

    wanted: int
    made: int = 0
    open: int = 0
    _waiting: int = 0
    _all_here: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.made += 1
        self.open += 1
        async with stream:
            while await stream.receive_some():
                await self._wait_for_all()
                await stream.send_all(SIZED)
        self.open -= 1

    async def _wait_for_all(self) -> None:
        self._waiting += 1
        all_here = self._all_here
        if self._waiting < self.wanted:
            await all_here.wait()
        else:
            self._waiting, self._all_here = 0, trio.Event()
            all_here.set()

    async def asked_by(self, number: int, upstream: Upstream) -> None:
        """Send this many requests at once."""
        self.wanted = number
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(ask, upstream)

    async def settled(self, number: int) -> None:
        """Wait until this many connections are open."""
        for _ in range(1000):
            if self.open == number:
                return
            await trio.lowlevel.checkpoint()
        pytest.fail(f"{self.open} connections are open, not {number}")


@asynccontextmanager
async def crowd(timeouts: Timeouts) -> AsyncIterator[tuple[Crowd, Upstream]]:
    server = Crowd(0)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1", backlog=1024)
        )
        upstream = Upstream(Origin("127.0.0.1", listener.socket.getsockname()[1]), timeouts)
        yield server, upstream
        upstream.close()
        await server.settled(0)
        nursery.cancel_scope.cancel()


async def test_as_many_streams_as_there_were_begin_again_without_connecting() -> None:
    """Three rounds of 200 requests use 200 connections in total."""
    async with crowd(Timeouts()) as (server, upstream):
        for _ in range(3):
            await server.asked_by(200, upstream)
            assert (server.made, server.open) == (200, 200)


async def test_more_connections_than_are_kept_are_closed_at_once() -> None:
    """The kept connections are used again."""
    async with crowd(Timeouts()) as (server, upstream):
        upstream.most_kept = 10
        await server.asked_by(30, upstream)
        await server.settled(10)
        await server.asked_by(10, upstream)
        assert server.made == 30


@attrs.define(eq=False)
class Clock:
    """Replaces the module `time`, of which only this function is used."""

    now: float = 0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(upstream_module, "time", clock := Clock())
    return clock


async def test_connections_that_were_needed_once_go_while_others_are_kept(clock: Clock) -> None:
    """The busy connection is reused; after idleConn, each request closes one of the others."""
    async with crowd(Timeouts(idle_conn=AnySeconds(90))) as (server, upstream):
        await server.asked_by(5, upstream)
        for _ in range(9):
            clock.now += 10
            await server.asked_by(1, upstream)
        assert (server.made, server.open) == (5, 5)
        clock.now += 10
        for left in (4, 3, 2, 1, 1):
            await server.asked_by(1, upstream)
            await server.settled(left)
        assert server.made == 5


async def test_all_that_is_too_old_goes_when_one_is_asked_for(clock: Clock) -> None:
    """An old connection is not used, because the other end may have changed."""
    async with crowd(Timeouts(idle_conn=AnySeconds(90))) as (server, upstream):
        await server.asked_by(5, upstream)
        clock.now += 91
        await server.asked_by(1, upstream)
        await server.settled(1)
        assert server.made == 6


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi",
        SIZED + SIZED,
        SIZED + b"garbage",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    ],
)
async def test_a_connection_out_of_step_is_not_used_again(answer: bytes) -> None:
    """The answer itself is still complete."""
    async with peer([answer], [SIZED]) as (played, upstream):
        assert await ask(upstream) == (200, b"hi")
        assert await ask(upstream) == (200, b"hi")
        assert played.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    """Servers close idle connections after a few seconds."""
    async with peer([SIZED], [SIZED]) as (played, upstream):
        assert await ask(upstream) == (200, b"hi")
        await trio.sleep(0.05)
        assert await ask(upstream) == (200, b"hi")
        assert len(played.requests) == 2


async def test_what_a_server_says_unasked_is_nobodys_answer() -> None:
    """For example, a server may send 408 for a connection that was idle too long."""
    late = b"HTTP/1.1 408 T\r\ncontent-length: 0\r\n\r\n"
    async with peer([SIZED + late], [SIZED]) as (_, upstream):
        await ask(upstream)
        await trio.sleep(0.05)
        assert await ask(upstream) == (200, b"hi")


async def test_a_request_that_was_worked_on_is_not_sent_again() -> None:
    """A server that read the request before it closed may have carried it out."""

    class Slow(Peer):
        async def serve(self, stream: trio.SocketStream) -> None:
            async with stream:
                await self._request(stream)
                await stream.send_all(SIZED)
                await self._request(stream)
                await trio.sleep(0.2)

    played = Slow([[]])
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, played.serve, 0)
        upstream = Upstream(Origin("127.0.0.1", listeners[0].socket.getsockname()[1]))
        await ask(upstream)
        with pytest.raises(UpstreamError, match="closed the connection without an answer"):
            await ask(upstream)
        nursery.cancel_scope.cancel()
    assert len(played.requests) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: y", "in mid-answer"),
        (b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not HTTP"),
        (OK + b"content-length: 5\r\n\r\nhi", "in mid-answer"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhi", "in mid-answer"),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nhi", "not HTTP"),
        (OK + b"x: " + b"y" * (LONGEST_HEAD + 1), "head of the model server's answer is too long"),
    ],
)
async def test_a_broken_answer_is_an_error_with_its_reason(answer: bytes, reason: str) -> None:
    """The connection is closed."""
    async with peer([answer]) as (_, upstream):
        with pytest.raises(UpstreamError, match=reason):
            await ask(upstream)


async def test_an_early_answer_to_a_long_request_is_heard() -> None:
    """A server may refuse 20 MB after the first bytes and read no more."""
    refusal = b"HTTP/1.1 413 X\r\ncontent-length: 2\r\n\r\nno"
    async with peer([refusal], reads=False) as (_, upstream):
        assert await ask(upstream, b"x" * 20_000_000) == (413, b"no")


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "x" * 70])
async def test_a_host_that_is_not_there_is_an_error(host: str) -> None:
    """The connection is refused, or the name is invalid."""
    with pytest.raises(UpstreamError, match="no connection to"):
        await ask(Upstream(Origin(host, 1)))


def tried(address: str, number: int) -> OSError:
    return OSError(number, f"Error connecting to {(address, 1)!r}: x")


REFUSED = tried("127.0.0.1", errno.ECONNREFUSED)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ([REFUSED], "connection refused"),
        (
            [tried("::1", errno.ECONNREFUSED), REFUSED],
            "refused",
        ),
        ([OSError(errno.ENETUNREACH, "x")], "network is unreachable"),
        ([OSError(errno.EACCES, "x")], "permission denied"),
        (
            [tried("::1", errno.ECONNREFUSED), tried("127.0.0.1", errno.EHOSTUNREACH)],
            "[::1] connection refused; 127.0.0.1 no route to host",
        ),
        (
            [OSError(errno.ENETUNREACH, "x"), tried("10.0.0.1", errno.ETIMEDOUT)],
            "network is unreachable; 10.0.0.1 connection timed out",
        ),
    ],
)
@pytest.mark.parametrize("is_grouped", [True, False])
async def test_a_connection_that_fails_says_what_the_system_said(
    monkeypatch: pytest.MonkeyPatch, cause: list[OSError], said: str, is_grouped: bool
) -> None:
    """The error lists each address that was tried, unless all failed in the same way."""

    async def fail(*_: object) -> None:
        chained = ExceptionGroup("x", cause) if is_grouped or len(cause) > 1 else cause[0]
        raise OSError("all attempts to connect to h:1 failed") from chained

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    with pytest.raises(UpstreamError) as caught:
        await ask(Upstream(Origin("h", 1)))
    assert str(caught.value).startswith("no connection to h:1: ")
    assert str(caught.value).endswith(said)


async def test_a_name_that_nobody_knows_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the resolver's own words."""

    async def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    with pytest.raises(UpstreamError, match="no connection to h:1: name or service not known"):
        await ask(Upstream(Origin("h", 1)))


async def test_a_connection_that_breaks_says_what_the_system_said() -> None:
    """A reset is reported differently from a normal close."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.aclose()  # bytes that were not read turn the close into a reset

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        upstream = Upstream(Origin("127.0.0.1", listeners[0].socket.getsockname()[1]))
        with pytest.raises(UpstreamError, match="server broke: connection reset by peer"):
            await ask(upstream)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:5800", Origin("localhost", 5800)),
        ("http://x", Origin("x", 80)),
        ("https://x/base/", Origin("x", 443, True, "/base")),
        ("http://[::1]:9", Origin("::1", 9)),
    ],
)
def test_addresses_are_read(url: str, origin: Origin) -> None:
    """The default port follows from the scheme."""
    assert Origin.of(url) == origin


async def test_cancelling_an_exchange_closes_its_connection() -> None:
    """The server sees the connection end although it has not answered."""
    ended = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        upstream = Upstream(Origin("127.0.0.1", listeners[0].socket.getsockname()[1]))
        with trio.move_on_after(0.05):
            await ask(upstream)
        with trio.fail_after(1):
            await ended.wait()
        nursery.cancel_scope.cancel()
