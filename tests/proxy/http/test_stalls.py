"""A model server that sends nothing for too long (``timeouts.busy``)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from configschema import Timeouts
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.parsing import Stalled
from proxy.http.upstream import Upstream
from tests.proxy.http.test_upstream import SIZED, ask, peer

IMPATIENT = Timeouts(busy=1, response_header=60)  # type: ignore[arg-type] # plain numbers


@asynccontextmanager
async def stalling(beginning: bytes, pause: float = 1000) -> AsyncIterator[Upstream]:
    """Serve the start of an answer, a pause, and the rest; yield a client with a timeout of 1 s."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(beginning)
            await trio.sleep(pause)
            await stream.send_all(SIZED[len(beginning) :])

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        upstream = Upstream(Origin("127.0.0.1", port), IMPATIENT)
        yield upstream
        upstream.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"{}", b"x" * 100_000, b"x" * 30_000_000])
@pytest.mark.parametrize("beginning", [b"", SIZED[:10], SIZED[:-1]])
async def test_a_request_without_a_byte_for_too_long_is_cut(beginning: bytes, body: bytes) -> None:
    """The stall may be before, in or after the head, or while the server does not read the body."""
    async with stalling(beginning) as upstream:
        began = trio.current_time()
        with pytest.raises(Stalled) as caught:
            await ask(upstream, body)
        assert 1 <= trio.current_time() - began < 2
    assert str(caught.value) == "no byte from the model server for 1s (timeouts.busy)"


async def test_a_request_that_gets_its_bytes_in_time_is_not_cut() -> None:
    """The total time does not matter."""
    async with peer([SIZED]) as (_, upstream):
        upstream.timeouts = IMPATIENT
        assert await ask(upstream) == (200, b"hi")
    async with stalling(SIZED[:-1], pause=0.7) as upstream:
        assert await ask(upstream) == (200, b"hi")


async def test_a_client_that_takes_its_time_is_not_the_model_servers_stall() -> None:
    """While the client does not read, the daemon does not read from the model server."""
    async with stalling(SIZED[:-1], pause=0.2) as upstream:
        request = Request(method=b"POST", target=b"/x", headers=[(b"host", b"h")])
        with await upstream.exchange(request) as response:
            assert await response.read() == b"h"
            await trio.sleep(1.3)
            assert await response.read() == b"i"


async def test_an_upload_that_comes_slowly_is_not_the_model_servers_stall() -> None:
    """The model server cannot answer before it has the whole upload."""

    class Slow:
        length = 3
        sent = 0

        async def read(self) -> bytes:
            await trio.sleep(0.6)
            self.sent += 1
            return b"x" if self.sent <= self.length else b""

    async with peer([SIZED]) as (_, upstream):
        upstream.timeouts = IMPATIENT
        request = Request(method=b"POST", target=b"/x", headers=[], body=Slow())
        with await upstream.exchange(request) as response:
            assert response.status == 200


async def test_a_websocket_may_say_nothing() -> None:
    """timeouts.busy does not apply to websockets."""
    agreed = b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    async with peer([agreed, b"late"]) as (_, upstream):
        upstream.timeouts = IMPATIENT
        request = Request(method=b"GET", target=b"/x", headers=[(b"a", b"b")], may_upgrade=True)
        with await upstream.exchange(request) as response:
            async with trio.open_nursery() as nursery:

                async def speak() -> None:
                    await trio.sleep(1.3)
                    await response.send(b"\r\n\r\n")

                nursery.start_soon(speak)
                assert await response.read() == b"late"
