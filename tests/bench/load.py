"""Many clients against a daemon: loads that need a queue.

Each function returns a measurement; its caller knows the expected value.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from tests.peers.client import Client, chat


async def alternating(port: int, clients: int, requests: int, delay: float) -> float:
    """Let clients send requests to `a` and `b` in turns; half of them begin with each.

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
    """Keep `a` busy without a gap, then ask once for `b`; return the seconds until its answer."""

    async def keep_busy() -> None:
        while True:
            assert (await chat(port, "a", delay=delay)).status == 200

    await chat(port, "a")  # or all would wait for its start, and continue in step
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
    """Let clients send requests to one model after the other until `enough` says so.

    Returns the number of answers, and the statuses of wrong ones.
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
