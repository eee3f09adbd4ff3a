"""One client's connection in each state, over TCP, over TLS, and without epoll."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from proxy.http import readable
from proxy.http.exchange import Exchange
from tests.proxy.certificates import contexts
from tests.proxy.daemon import Daemon, daemon, stub
from tests.proxy.serving import ASK, serving

PAUSE = 0.03  # seconds in which sent bytes are read
BLANK = b"\r\n"
HEAD = re.compile(rb"HTTP/1.1 \d+ (?:[^\r]+\r\n)*?content-length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n")
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@attrs.frozen
class Way:
    """How clients connect to the daemon."""

    serves: ssl.SSLContext | None = None
    trusts: ssl.SSLContext | None = None

    @asynccontextmanager
    async def to(self, port: int) -> AsyncIterator[Stream]:
        """Connect; at the end, disconnect without a TLS goodbye."""
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        stream: Stream = plain
        try:
            if self.trusts is not None:
                stream = trio.SSLStream(plain, self.trusts, server_hostname="localhost")
                await stream.do_handshake()
            yield stream
        finally:
            await trio.aclose_forcefully(plain)


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(*contexts(Path(tmp_path_factory.mktemp("tls"))))


@pytest.fixture(params=["TCP", "TLS", "no epoll"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, with_tls: Way) -> Way:
    if request.param == "no epoll":
        monkeypatch.setattr(readable, "HAS_EPOLL", False)
    return with_tls if request.param == "TLS" else Way()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.01)


def asking(path: str, body: bytes | None = None, head: bytes = b"") -> bytes:
    length = b"" if body is None else b"content-length: %d\r\n" % len(body)
    lines = b"POST %b HTTP/1.1\r\nhost: localhost\r\n" % path.encode()
    return lines + length + head + BLANK + (body or b"")


@attrs.define(eq=False)
class Echo:
    """Answers with the path and the read body; for ``/slow``, only after `goes_on` is set."""

    begun: list[str] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)
    goes_on: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, exchange: Exchange) -> None:
        self.begun.append(exchange.path)
        try:
            size, digest = 0, hashlib.sha256()
            if exchange.path.startswith("/slow"):
                await self.goes_on.wait()
            if exchange.path == "/refuse":
                await exchange.say(403, [], b"no")
                return
            while piece := await exchange.read():
                size += len(piece)
                digest.update(piece)
            said = f"{exchange.path} {size} {digest.hexdigest()[:8]}"
            await exchange.say(200, [], said.encode())
        finally:
            self.ended.append(exchange.path)


def said(path: str, body: bytes = b"") -> str:
    return f"{path} {len(body)} {hashlib.sha256(body).hexdigest()[:8]}"


async def answers(stream: Stream, count: int) -> list[str]:
    """Return the bodies of the next answers."""
    found: list[str] = []
    read = b""
    with trio.fail_after(10):
        while len(found) < count:
            piece = bytes(await stream.receive_some(65536))
            assert piece, f"the end instead of an answer, after {found}"
            read += piece
            while match := HEAD.match(read):
                end = match.end() + int(match[1])
                if len(read) < end:
                    break
                found.append(read[match.end() : end].decode())
                read = read[end:]
    assert not read
    return found


@asynccontextmanager
async def connected(way: Way) -> AsyncIterator[tuple[Stream, Echo, Callable[[], Awaitable[None]]]]:
    """Return a connection, the handler that answers, and a check that all is as it was at first.

    The check sends single requests. After them, the number of tasks must be as at first.
    """
    echo = Echo()
    async with serving(echo, tls=way.serves) as served, way.to(served.port) as stream:

        async def is_as_before() -> None:
            for number in range(3):
                await stream.send_all(asking(f"/single-{number}", b"x" * number))
                expected = said(f"/single-{number}", b"x" * number)
                assert await answers(stream, 1) == [expected]
            await trio.sleep(PAUSE)
            assert tasks() == before
            assert echo.begun == echo.ended

        await stream.send_all(asking("/first", b""))
        await answers(stream, 1)
        await trio.sleep(PAUSE)
        before = tasks()
        yield stream, echo, is_as_before


async def test_the_next_request_may_come_while_one_is_served(way: Way) -> None:
    """The next request may arrive whole or in pieces; answers keep the order of the requests."""
    async with connected(way) as (stream, echo, is_as_before):
        await stream.send_all(asking("/slow", b"one"))
        await trio.sleep(PAUSE)
        await stream.send_all(asking("/a", b""))
        await trio.sleep(PAUSE)
        late = asking("/b", b"two" * 9)
        for start in range(0, len(late), 40):
            await stream.send_all(late[start : start + 40])
            await trio.sleep(PAUSE)
        assert echo.begun == ["/first", "/slow"]
        echo.goes_on.set()
        found = await answers(stream, 3)
        assert found == [said("/slow", b"one"), said("/a"), said("/b", b"two" * 9)]
        await is_as_before()


async def test_half_a_head_may_come_while_one_is_served(way: Way) -> None:
    """The rest of the head arrives before or after the answer."""
    async with connected(way) as (stream, echo, is_as_before):
        for is_answered in (False, True):
            echo.goes_on = trio.Event()
            await stream.send_all(asking("/slow", b""))
            await trio.sleep(PAUSE)
            half = asking("/half", b"body")
            await stream.send_all(half[:20])
            await trio.sleep(PAUSE)
            if is_answered:
                echo.goes_on.set()
                assert await answers(stream, 1) == [said("/slow")]
                await trio.sleep(PAUSE)
            await stream.send_all(half[20:])
            await trio.sleep(PAUSE)
            echo.goes_on.set()
            expected = [said("/slow"), said("/half", b"body")]
            assert await answers(stream, 2 - is_answered) == expected[is_answered:]
            await is_as_before()


async def test_a_dozen_requests_may_come_while_one_is_served(way: Way) -> None:
    """More requests arrive than the daemon reads before it answers the earlier ones."""
    paths = [f"/{number}" for number in range(12)]
    async with connected(way) as (stream, echo, is_as_before):
        await stream.send_all(asking("/slow", b""))
        await trio.sleep(PAUSE)
        for path in paths:
            await stream.send_all(asking(path, b"x" * 1000))
            await trio.sleep(0.005)
        echo.goes_on.set()
        expected = [said("/slow"), *(said(path, b"x" * 1000) for path in paths)]
        assert await answers(stream, 13) == expected
        await is_as_before()


async def test_requests_that_come_in_one_piece_are_all_answered(way: Way) -> None:
    """There may be more requests than one read takes, and a body may span two reads."""
    paths = [f"/{number}" for number in range(40)]
    async with connected(way) as (stream, _, is_as_before):
        for _ in range(3):
            bodies = [b"%d" % number * 4000 for number in range(40)]
            pairs = list(zip(paths, bodies, strict=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b"".join(asking(*pair) for pair in pairs))
                found = await answers(stream, 40)
            assert found == [said(*pair) for pair in pairs]
            await is_as_before()


async def test_a_body_may_come_late(way: Way) -> None:
    """The body arrives long after its head, before or after the handler waits for it."""
    async with connected(way) as (stream, echo, is_as_before):
        for path in ("/now", "/slow"):
            late = asking(path, b"body")
            await stream.send_all(late[:-4])
            await trio.sleep(5 * PAUSE)
            await stream.send_all(late[-4:-1])
            await trio.sleep(PAUSE)
            echo.goes_on.set()
            await trio.sleep(PAUSE)
            await stream.send_all(late[-1:])
            assert await answers(stream, 1) == [said(path, b"body")]
            await is_as_before()


@pytest.mark.parametrize("path", ["/now", "/slow"])
@pytest.mark.parametrize("size", [1000, 65536, 300_000])
async def test_a_body_of_megabytes_comes_in_pieces_with_pauses(
    way: Way, path: str, size: int
) -> None:
    """The next request follows directly after the body."""
    body = os.urandom(3 << 20) if size > 1000 else os.urandom(50_000)
    async with connected(way) as (stream, echo, is_as_before):

        async def send() -> None:
            await stream.send_all(asking(path, None, b"content-length: %d\r\n" % len(body)))
            for start in range(0, len(body), size):
                await stream.send_all(body[start : start + size])
                if start % (size * 3) == 0:
                    await trio.sleep(PAUSE / 10)
            await stream.send_all(asking("/next", b""))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(5 * PAUSE)
            echo.goes_on.set()
            assert await answers(stream, 2) == [said(path, body), said("/next")]
        await is_as_before()


async def test_a_body_in_chunks_may_be_cut_anywhere(way: Way) -> None:
    """The cut may be in the middle of a chunk size or of the last chunk."""
    whole = asking("/chunks", None, b"transfer-encoding: chunked\r\n")
    whole += b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    async with connected(way) as (stream, _, is_as_before):
        for step in (1, 7):
            for start in range(0, len(whole), step):
                await stream.send_all(whole[start : start + step])
                await trio.sleep(0.002)
            assert await answers(stream, 1) == [said("/chunks", b"abc0123456789abcdef")]
        await is_as_before()


async def test_blank_lines_between_requests_harm_in_no_state(way: Way) -> None:
    """RFC 9112, 2.2: before a head, during a request, between two requests, and byte by byte."""
    async with connected(way) as (stream, echo, is_as_before):
        await stream.send_all(BLANK)
        await trio.sleep(PAUSE)
        await stream.send_all(b"\r")
        await trio.sleep(PAUSE)
        await stream.send_all(b"\n" + BLANK + asking("/slow", b"x")[:-1])
        await trio.sleep(PAUSE)
        await stream.send_all(b"x" + BLANK)
        for _ in range(5):
            await trio.sleep(PAUSE)
            await stream.send_all(BLANK)
        await stream.send_all(asking("/a", b"") + BLANK + BLANK + asking("/b", b"") + BLANK)
        await trio.sleep(PAUSE)
        echo.goes_on.set()
        assert await answers(stream, 3) == [said("/slow", b"x"), said("/a"), said("/b")]
        await stream.send_all(BLANK)
        await is_as_before()


@pytest.mark.parametrize("body", [b"", b"x" * 100_000])
async def test_garbage_while_one_is_served_ends_the_connection_after_its_answer(
    way: Way, body: bytes
) -> None:
    """The garbage gets an error, and bytes after it are ignored."""
    async with connected(way) as (stream, echo, _):
        await stream.send_all(asking("/slow", body))
        await trio.sleep(PAUSE)
        await stream.send_all(b"\x00nonsense\r\n\r\n" + asking("/never", b""))
        await trio.sleep(PAUSE)
        echo.goes_on.set()
        found = await answers(stream, 2)
        assert found[0] == said("/slow", body)
        assert "not HTTP/1.1" in found[1]
        with trio.fail_after(2):
            assert await ends(stream)
        assert "/never" not in echo.begun


async def ends(stream: Stream) -> bool:
    """Return True once the other side has closed the connection."""
    try:
        return not await stream.receive_some()
    except trio.BrokenResourceError:  # the TLS goodbye is missing
        return True


@pytest.mark.parametrize("pause", [0, 0.05])
async def test_urgent_data_in_a_request_holds_nothing_up(pause: float) -> None:
    """A read stops at urgent data, and no event reports the bytes after it (tcp(7))."""
    echo = Echo()
    body = b"x" * 20
    async with serving(echo) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client, trio.fail_after(5):
            for turn in range(2):
                await trio.sleep(0.05)  # so that there is nothing else to read
                client.send(asking("/a", body)[:-15])
                await trio.sleep(pause)
                client.send(b"!", socket.MSG_OOB)
                client.send(body[:15])
                await until(lambda turn=turn: len(echo.ended) > turn)  # type: ignore[misc] # its own
                assert said("/a", body).encode() in await trio.to_thread.run_sync(client.recv, 4096)


async def test_a_cancellation_that_comes_too_late_is_not_for_the_next_request() -> None:
    """The first request gets its own answer; the second request gets none."""
    served: list[Exchange] = []
    goes_on = trio.Event()

    async def handle(exchange: Exchange) -> None:
        served.append(exchange)
        await goes_on.wait()
        await exchange.say(200, [], exchange.path.encode())

    async with serving(handle) as serving_it, Way().to(serving_it.port) as stream:
        await stream.send_all(asking("/first", b"") + asking("/second", b""))
        await trio.sleep(2 * PAUSE)
        goes_on.set()
        served[0].cancel()  # the request goes on in this very step
        assert await answers(stream, 1) == ["/first"]
        with trio.fail_after(2):
            assert await ends(stream)


LEFT = {
    "idle": b"",
    "a blank line": BLANK,
    "half a head": asking("/half", b"")[:20],
    "a head": asking("/now", b"body")[:-4],
    "half a body": asking("/now", b"body")[:-2],
    # More than the daemon buffers. The system's buffers have room for the rest, and so for the end.
    "a body that is not read": asking("/slow", b"x" * 330_000)[:-2],
    "served": asking("/slow", b"body"),
    "served, with a blank line": asking("/slow", b"body") + BLANK,
    "served, half a head behind it": asking("/slow", b"body") + asking("/next", b"")[:20],
    "served, many behind it": asking("/slow", b"body") + asking("/next", b"") * 20,
    "refused, and more to come": asking("/refuse", b"x" * 50_000)[:-2],
}


@pytest.mark.parametrize("sent", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("reads", [False, True], ids=["at once", "later"])
async def test_a_client_that_leaves_in_any_state_leaves_nothing(
    way: Way, sent: bytes, reads: bool
) -> None:
    """No task, descriptor or handler call remains."""
    echo = Echo()
    async with serving(echo, tls=way.serves) as served:
        async with way.to(served.port) as stream:
            await stream.send_all(ASK)
            await answers(stream, 1)
        await trio.sleep(2 * PAUSE)
        tasks_before, descriptors_before = tasks(), descriptors()
        for _ in range(3):
            async with way.to(served.port) as stream:
                with trio.move_on_after(1):  # the daemon may not read all of it
                    await stream.send_all(sent)
                await trio.sleep(2 * PAUSE if reads else 0)
        await until(lambda: tasks() == tasks_before)
        await until(lambda: descriptors() == descriptors_before)
        assert echo.begun == echo.ended


@asynccontextmanager
async def watched(way: Way, **more: Any) -> AsyncIterator[Daemon]:
    """Serve models, and check at the end that nothing remains of the clients."""
    model = {"a": stub(), "b": stub("--start", "0.8"), **more}
    async with daemon(model, tls=way.serves, apiKeys=["sk-one"]) as running:
        async with way.to(running.port) as stream:
            await stream.send_all(completion("a"))
            await whole_answer(stream)
        await trio.sleep(5 * PAUSE)
        tasks_before, descriptors_before = tasks(), descriptors()
        yield running
        await until(lambda: not running.in_use("a") and not running.in_use("b"))
        await until(lambda: tasks() <= tasks_before)
        await until(lambda: descriptors() <= descriptors_before)


def completion(model: str, key: str = "sk-one", **more: Any) -> bytes:
    body = json.dumps({"model": model, **more}).encode()
    return asking("/v1/completions", body, b"x-api-key: %b\r\n" % key.encode())


async def whole_answer(stream: Stream) -> bytes:
    read = b""
    with trio.fail_after(10):
        while b"\r\n\r\n" not in read or not read.endswith((b"}", b"\r\n0\r\n\r\n")):
            read += bytes(await stream.receive_some(65536))
    return read


async def test_a_client_that_leaves_a_stream_gives_the_model_back(way: Way) -> None:
    """The model is free at once, not when its answer ends."""
    async with watched(way) as running:
        async with way.to(running.port) as stream:
            await stream.send_all(completion("a", stream=True, chunks=1000, pause=0.05))
            with trio.fail_after(5):
                assert b"200 OK" in await stream.receive_some(65536)
            assert running.in_use("a")
        with trio.fail_after(1):
            await until(lambda: not running.in_use("a"))


async def test_a_client_that_leaves_while_the_model_thinks_gives_it_back(way: Way) -> None:
    """The daemon notices although it writes nothing that could fail."""
    async with watched(way) as running:
        async with way.to(running.port) as stream:
            await stream.send_all(completion("a", pause=1000, chunks=1))
            await until(lambda: running.in_use("a"))
        with trio.fail_after(1):
            await until(lambda: not running.in_use("a"))


async def test_a_client_that_leaves_while_it_waits_for_a_model_waits_no_more(way: Way) -> None:
    """The client's place in the queue becomes free."""
    async with watched(way) as running:
        async with way.to(running.port) as stream:
            await stream.send_all(completion("b"))
            await until(lambda: running.in_use("b"))
        with trio.fail_after(0.5):
            await until(lambda: not running.in_use("b"))
        await running.supervisor.unload("b")


async def test_a_client_that_leaves_with_half_a_body_leaves_nothing(way: Way) -> None:
    """The body is passed on to a model server, or kept in memory."""
    body = completion("a", filler="x" * 200_000)
    upload = body.replace(b"/v1/completions", b"/upstream/a/v1/completions", 1)
    async with watched(way) as running:
        for request in (body, upload):
            for size in (100, 100_000):
                async with way.to(running.port) as stream:
                    await stream.send_all(request[:size])
                    await trio.sleep(2 * PAUSE)


async def test_a_client_that_leaves_after_a_refusal_leaves_nothing(way: Way) -> None:
    """The client has its answer, and the daemon was still reading the rest of the request."""
    async with watched(way) as running:
        for size in (150, 150_000):
            async with way.to(running.port) as stream:
                await stream.send_all(completion("a", "sk-wrong", filler="x" * 200_000)[:size])
                with trio.fail_after(2):
                    assert b" 401 " in await stream.receive_some(65536)
                await stream.send_all(b"x" * 1000)
