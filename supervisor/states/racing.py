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


async def kept_up(run: Callable[[], Awaitable[None]]) -> None:
    """Run what goes on beside the models; a fault of ours in it is told, and ends nothing else."""
    while True:
        try:
            await run()
        except* Exception:  # whatever it is, the models serve on
            log.exception("Internal error; this part of llamadoze is begun anew")
        await trio.sleep(BEFORE_IT_IS_BEGUN_ANEW)


def innermost(error: BaseException) -> BaseException:
    """Return the first cause in the groups that nurseries wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
