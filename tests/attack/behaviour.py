"""Clients that send little, read nothing, or stay: each as a function of the daemon's port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import trio

from tests.attack.inputs import request
from tests.attack.measuring import answer_to

Behaviour = Callable[[int], Awaitable[str]]
UPGRADE = (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-key: x")


async def _others_are_served(port: int, model: str) -> str:
    body = b'{"model": "%s"}' % model.encode()
    return await answer_to(port, request("POST", b"/v1/completions", body))


async def _while_connected(port: int, count: int, data: bytes, model: str) -> str:
    """Open connections that send some data, then nothing; send a request as another client."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            await stream.send_all(data)
        return await _others_are_served(port, model)


def behaviours(count: int) -> Iterator[tuple[str, Behaviour]]:
    """Yield each behaviour with its name; `count` clients misbehave at a time."""
    echoed = b'{"model": "a", "x": "' + b"x" * 300_000 + b'"}'
    for name, data, model in (
        ("connections that say nothing", b"", "a"),
        ("heads that do not end", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ", "a"),
        ("bodies that do not come", request("POST", b"/v1/completions", b"{").rstrip(b"{"), "b"),
        ("events that nobody reads", request("GET", b"/api/events"), "a"),
        ("logs that nobody reads", request("GET", b"/logs/stream"), "a"),
        ("answers that nobody reads", request("POST", b"/v1/chat/completions", echoed), "a"),
    ):

        async def behave(port: int, data: bytes = data, model: str = model) -> str:
            return await _while_connected(port, count, data, model)

        yield f"{count} {name}", behave
    upgrade = request("GET", b"/upstream/a/ws", b"", *UPGRADE).replace(
        b"connection: close\r\n", b""
    )

    async def websockets(port: int) -> str:
        return await _while_connected(port, count, upgrade, "b")

    yield f"{count} websockets that say nothing", websockets

    async def drip(port: int) -> str:
        head = request("PUT", b"/upstream/a/x", b"", b"content-length: 100000")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(head)

            async def send() -> None:
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.2)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                said = await _others_are_served(port, "b")
                nursery.cancel_scope.cancel()
        return said

    yield "a body that drips", drip
