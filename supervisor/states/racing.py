"""Runs several tasks until the first of them ends, and cancels the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

BEFORE_IT_IS_BEGUN_ANEW = 1.0  # seconds
T = TypeVar("T")


async def race(*rivals: Callable[[], Awaitable[T]]) -> T:
    """Run all of them and return the result of the first to end; the others are cancelled.

    The result may be stale when it arrives: what that task saw can have changed since.
    """
    results: list[T] = []

    async def run(rival: Callable[[], Awaitable[T]]) -> None:
        results.append(await rival())
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for rival in rivals:
            nursery.start_soon(run, rival)
    return results[0]


async def kept_up(run: Callable[[], Awaitable[None]]) -> None:
    """Run what works beside the models; an internal error is logged and ends nothing else."""
    while True:
        try:
            await run()
        except* Exception:  # whatever it is, the models go on serving
            log.exception("Internal error; llamadoze restarts this part of itself")
        await trio.sleep(BEFORE_IT_IS_BEGUN_ANEW)


def innermost(error: BaseException) -> BaseException:
    """Return the first cause inside the groups that nurseries wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
