"""Clients in numbers against a daemon in this process: what a queue is for.

Each pattern returns what it took; who calls it knows what that should be.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from tests.peers.client import Client, chat


async def alternating(port: int, clients: int, requests: int, delay: float) -> float:
    """Let clients ask for `a` and `b` in turns, half of them beginning with each.

    Returns the seconds until the last answer.
    """

    async def client(number: int) -> None:
        for turn in range(requests):
            reply = await chat(port, "ab"[(number + turn) % 2], delay=delay)
            assert reply.status == 200, reply.body

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
    return trio.current_time() - began


async def one_beside_a_stream(port: int, delay: float) -> float:
    """Keep `a` in use without a gap, then ask once for `b`; return the seconds until its answer."""

    async def keep_busy() -> None:
        while True:
            assert (await chat(port, "a", delay=delay)).status == 200

    await chat(port, "a")  # or all would wait for its start, and go on in step
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keep_busy)
            await trio.sleep(delay / 3)
        await trio.sleep(delay)
        began = trio.current_time()
        assert (await chat(port, "b")).status == 200
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return took


async def until_swapped(
    port: int, clients: int, models: str, enough: Callable[[], bool]
) -> tuple[int, list[int]]:
    """Let clients ask for one model after the other until that is enough.

    Returns how many answers there were, and the statuses of those that were none.
    """
    answers = 0
    wrong: list[int] = []

    async def client(number: int) -> None:
        nonlocal answers
        connection = await Client.connect(port)
        async with connection.stream:
            turn = number
            while not enough():
                body = {"model": models[turn % len(models)]}
                reply = await connection.ask("POST", "/v1/chat/completions", body)
                answers += 1
                turn += 1
                if reply.status != 200 or not reply.complete:
                    wrong.append(reply.status)

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
    return answers, wrong
