"""Silent websockets, and requests that wait behind them."""

from __future__ import annotations

import contextlib
from math import inf

import pytest
import trio
from trio.testing import MockClock

from proxy.forwarding.tunnel import CLOSING, Courtesy, Tunnel
from proxy.http.bodies import Incoming
from tests.peers.client import chat
from tests.proxy.arriving import Arriving
from tests.proxy.daemon import Daemon, daemon, stub

UPGRADE = (
    b"GET /upstream/a/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n"
)


class Speaker:
    """The model server's side of a websocket, which sends a byte every `pause` seconds."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    async def read(self) -> bytes:
        await trio.sleep(self.pause)
        return b"x"

    async def send(self, data: bytes) -> None:
        pass


async def in_the_way_after(pause: float, silence: float, others_after: float) -> float | None:
    """Return the seconds until the websocket counts as in the way; None if it never does."""

    async def others_wait() -> None:
        await trio.sleep_until(began + others_after)

    began = trio.current_time()
    courtesy = Courtesy(others_wait, silence)
    silent = Incoming(Arriving.of([b"x"], pause=inf), None)
    tunnel = Tunnel(Speaker(pause), silent, courtesy)  # type: ignore[arg-type]  # all that is used of it

    async def listen() -> None:
        while True:
            await tunnel.read()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tunnel.to_server)
        nursery.start_soon(listen)
        with trio.move_on_after(1000):
            await tunnel.until_in_the_way()
            nursery.cancel_scope.cancel()
            return trio.current_time() - began
        nursery.cancel_scope.cancel()
    return None


@pytest.mark.parametrize(
    ("pause", "silence", "others_after", "found"),
    [
        (inf, 10, 0, 10),
        (inf, 10, 30, 30),
        (3, 10, 0, None),
        (inf, inf, 0, None),
        (inf, 10, inf, None),
    ],
)
async def test_a_websocket_is_in_the_way_when_it_is_silent_and_others_wait(
    pause: float,
    silence: float,
    others_after: float,
    found: float | None,
    autojump_clock: MockClock,
) -> None:
    """Both conditions must be true at the same time."""
    assert await in_the_way_after(pause, silence, others_after) == found


async def opened(running: Daemon) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    await stream.send_all(UPGRADE)
    said = b""
    while not said.endswith(b"hello "):
        said += await stream.receive_some()
    return stream


async def test_a_silent_websocket_makes_room_for_another_model() -> None:
    """The websocket is closed with a reason (RFC 6455, 5.5.1), and the other model is served."""
    async with (
        daemon({"a": stub(), "b": stub()}, maxWait=1) as running,
        await opened(running) as stream,
    ):
        with trio.fail_after(5):
            assert (await chat(running.port, "b")).status == 200
            said = [piece async for piece in stream]
    assert b"".join(said) == CLOSING


async def test_a_websocket_in_use_is_not_ended_for_others() -> None:
    """Other requests wait until the websocket ends, as they wait for any request."""
    async with (
        daemon({"a": stub(), "b": stub()}, maxWait=1) as running,
        await opened(running) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(chat, running.port, "b")
        for _ in range(8):
            await trio.sleep(0.25)
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        await stream.aclose()


async def test_a_websocket_whose_client_does_not_read_is_cut_without_a_word() -> None:
    """A close frame from the daemon would land inside a frame of the model server."""
    async with daemon({"a": stub(), "b": stub()}, maxWait=1) as running:
        stream = await opened(running)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_much, stream)
            await trio.sleep(0.5)
            with trio.fail_after(10):
                assert (await chat(running.port, "b")).status == 200
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
    assert b"internal error" not in running.book.proxy.text()


async def _send_much(stream: trio.SocketStream) -> None:
    """Send data that is echoed, and read none of it, until the other side takes no more."""
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(b"x" * 100_000)
