"""Odd and hostile bytes on a connection: each has a defined answer, and no other client notices."""

from __future__ import annotations

import re
import socket
import time

import pytest
import trio

from proxy.http import http1
from tests.peers.client import ask, chat
from tests.proxy.daemon import Daemon, daemon, stub

GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
BODY = b'{"model": "a"}'
POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\n"
CHUNKED = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
WHOLE = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"


async def said(port: int, *pieces: bytes, limit: float = 3, pause: float = 0) -> bytes:
    """Send bytes; return the answer until the connection is closed or the limit is over."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    answer = b""
    async with stream:
        with trio.move_on_after(limit):
            try:
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.sleep(pause)
                while more := await stream.receive_some():
                    answer += more
            except trio.BrokenResourceError:
                pass
    return answer


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of all answers in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


async def unharmed(running: Daemon) -> None:
    assert (await chat(running.port, "a")).status == 200
    with trio.fail_after(2):
        while running.in_use("a"):
            await trio.sleep(0.01)


BAD = {
    "garbage": b"\x00\x01\x02 hello\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nhost: localhost\r\na: b\r\n c\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nhost : x\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nhost: localhost\r\na: b\x00c\r\n\r\n",
    "a CR in a header": b"GET /health HTTP/1.1\r\nhost: localhost\r\na: b\rc\r\n\r\n",
    "an empty name": b"GET /health HTTP/1.1\r\nhost: localhost\r\n: b\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nhost: localhost\n\n",
    "a fragment": b"GET /health#x HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "half an address": b"GET http://[x HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a query alone": b"GET ?q HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a path that is not ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "length and chunks": CHUNKED + b"content-length: 14\r\n\r\n" + WHOLE,
    "two lengths": POST + b"content-length: 15\r\n\r\n" + BODY,
    "the same length twice": POST + b"content-length: 14\r\n\r\n" + BODY,
    "chunks twice": CHUNKED + b"transfer-encoding: chunked\r\n\r\n" + WHOLE,
    "a signed length": POST.replace(b"14", b"+14") + b"\r\n" + BODY,
    "a chunk without a size": CHUNKED + b"\r\nx\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer": CHUNKED + b"\r\n3\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"\r\n e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"\r\n" + WHOLE,
    "another coding": POST.replace(b"content-length: 14", b"transfer-encoding: gzip") + b"\r\n",
    "identity and a length": POST + b"transfer-encoding: identity\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
async def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    """The daemon answers once and closes the connection, because the next bytes may be anything."""
    async with daemon({"a": stub()}) as running:
        answer = await said(running.port, data + GET)
        assert statuses(answer) == [400]
        assert b"connection: close\r\n" in answer
        await unharmed(running)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n" + WHOLE, 501),
        (CHUNKED.replace(b"chunked", b"gzip") + b"transfer-encoding: chunked\r\n\r\n", 501),
        (b"GET /health HTTP/2.0\r\nhost: localhost\r\n\r\n", 505),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 431),
        (CHUNKED + b"\r\ne\r\n" + BODY + b"\r\n0\r\n" + b"a: b\r\n" * 40_000, 431),
    ],
    ids=["codings", "two", "HTTP/2.0", "CONNECT", "a long path", "many headers", "a long trailer"],
)
async def test_what_is_not_served_gets_its_own_status(data: bytes, status: int) -> None:
    """The daemon then closes the connection."""
    async with daemon({"a": stub()}) as running:
        assert statuses(await said(running.port, data)) == [status]
        await unharmed(running)


FINE = {
    "1,000 headers": b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    "the whole address": b"GET http://localhost/health?q HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "escapes": b"GET /%68ealth HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "blank lines before": b"\r\n\r\n" + GET,
    "an unknown upgrade": GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "extensions and trailers": CHUNKED + b"\r\ne;a=b\r\n" + BODY + b"\r\n0\r\nhost: evil\r\n\r\n",
    "chunks of one byte": CHUNKED
    + b"\r\n"
    + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    + b"0\r\n\r\n",
    "a body and an unknown upgrade": POST + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("data", FINE.values(), ids=FINE)
async def test_what_is_merely_odd_is_served(data: bytes) -> None:
    """The next request is served too, even if all bytes arrive one by one."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        last = GET[:-2] + b"connection: close\r\n\r\n"
        assert statuses(await said(running.port, data + last)) == [200, 200]
        if len(data) < 500:
            split = [bytes([byte]) for byte in data + last]
            assert statuses(await said(running.port, *split)) == [200, 200]


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    """The mix has forwarded requests, views, and an unreadable request at the end."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        several = (POST + b"\r\n" + BODY + GET + CHUNKED + b"\r\n" + WHOLE) * 30
        answer = await said(running.port, several + b"nonsense\r\n\r\n")
        assert statuses(answer) == [200, 200, 200] * 30 + [400]
        wishes = FINE["an unknown upgrade"] * 900 + GET[:-2] + b"connection: close\r\n\r\n"
        assert statuses(await said(running.port, wishes, limit=10)) == [200] * 901


async def test_thousands_of_requests_at_once_are_taken_as_they_are_served() -> None:
    """The buffer is bounded, and all requests are answered."""
    async with daemon({"a": stub()}) as running:
        slow = b'{"model": "a", "delay": 0.5}'
        first = POST.replace(b"14", b"%d" % len(slow)) + b"\r\n" + slow
        last = GET[:-2] + b"connection: close\r\n\r\n"
        answer = await said(running.port, first + GET * 5000 + last, limit=20)
        assert statuses(answer) == [200] * 5002


async def test_a_client_waits_for_100_before_it_sends() -> None:
    """The daemon asks for the body only if it accepts the request."""
    head = POST + b"expect: 100-continue\r\n"
    async with daemon({"a": stub()}, apiKeys=["k"]) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(head + b"x-api-key: k\r\n\r\n")
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(BODY)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert statuses(await said(running.port, head + b"\r\n")) == [401]


async def test_head_has_no_body() -> None:
    """This applies to views and model servers; the next answer follows at once."""
    async with daemon({"a": stub()}) as running:
        head = b"HEAD /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
        answer = await said(running.port, head + GET[:-2] + b"connection: close\r\n\r\n")
        assert statuses(answer) == [200, 200]
        assert b'"object"' not in answer
        assert answer.endswith(b"\r\n\r\nOK")


async def test_http_1_0_gets_no_chunks() -> None:
    """The end of the connection ends a stream; keep-alive is respected."""
    stream = b'{"model":"a","chunks":2}'
    head = b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(stream)
    keep = b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    async with daemon({"a": stub()}) as running:
        answer = await said(running.port, head + stream)
        assert answer.endswith(b'\r\n\r\ndata: {"n": 0}\n\ndata: {"n": 1}\n\n')
        assert statuses(await said(running.port, keep + b"GET /health HTTP/1.0\r\n\r\n")) == [
            200,
            200,
        ]


async def test_a_refusal_is_read_before_the_connection_ends() -> None:
    """The client still sends its body, and an early close would reset the answer away."""
    async with daemon({"a": stub()}, apiKeys=["k"]) as running:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 30000000\r\n\r\n"
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(head)
            for _ in range(30):
                await stream.send_all(b"x" * 1_000_000)
            assert statuses(await stream.receive_some()) == [401]
            assert await stream.receive_some() == b""


async def test_slow_heads_and_slow_bodies_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head has a total time limit; a body must only keep arriving."""
    monkeypatch.setattr(http1, "SLOWEST_HEAD", 0.4)
    monkeypatch.setattr(http1, "SLOWEST_PIECE", 0.4)
    async with daemon({"a": stub()}) as running:
        for data in (GET[:20], POST + b"\r\n" + BODY[:5]):
            began = time.monotonic()
            assert await said(running.port, data) == b""
            assert 0.3 < time.monotonic() - began < 1.5
        began = time.monotonic()
        await said(running.port, *(bytes([byte]) for byte in GET * 2), pause=0.05)
        assert time.monotonic() - began < 1.5
        slow = [POST + b"\r\n", *(bytes([byte]) for byte in BODY)]
        assert statuses(await said(running.port, *slow, pause=0.1)) == [200]
        await unharmed(running)


async def test_clients_that_reset_at_any_moment_harm_nobody() -> None:
    """Clients reset while they send, wait and read."""
    stream = b'{"model":"a","chunks":50,"pause":0.005}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: [::]\r\ncontent-length: %d\r\n\r\n" % len(
        stream
    )
    async with daemon({"a": stub(concurrencyLimit=200)}) as running:
        await chat(running.port, "a")

        async def visit(number: int) -> None:
            data = (head + stream)[: 10 + number * 4]
            client = await trio.open_tcp_stream("127.0.0.1", running.port)
            await client.send_all(data)
            await trio.sleep(number % 10 / 100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(visit, number)
        await unharmed(running)


async def test_a_client_that_stops_reading_holds_up_nobody() -> None:
    """Neither other clients nor the end of the daemon have to wait."""
    async with daemon({"a": stub()}, grace=0.3) as running:
        body = b'{"model":"a","raw":true,"x":"%b"}' % (b"y" * 30_000_000)
        head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
        head += b"content-length: %d\r\n\r\n" % len(body)
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(head + body)
            await stream.receive_some(1000)
            assert (await ask(running.port, "GET", "/health")).status == 200
            began = time.monotonic()
            running.stop.set()
            with trio.fail_after(3):
                while running.in_use("a"):
                    await trio.sleep(0.01)
            assert time.monotonic() - began < 2
