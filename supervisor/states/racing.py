"""Runs several tasks until the first of them ends, and cancels the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def race(*rivals: Callable[[], Awaitable[T]]) -> T:
    """Run all of them and return the result of the first to end; the others are cancelled.

    The result may be stale when it arrives: what a rival saw can have changed since.
    """
    results: list[T] = []

    async def run(rival: Callable[[], Awaitable[T]]) -> None:
        results.append(await rival())
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for rival in rivals:
            nursery.start_soon(run, rival)
    return results[0]


def innermost(error: BaseException) -> BaseException:
    """Return the first cause in the groups that nurseries wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
