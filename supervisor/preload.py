"""Bringing up models before anybody asks: ``hooks.on_startup.preload``.

Each answers one token, so that nothing is left to do for its first user. Who has to make room for
the next one sleeps, if it can; so the first user meets a wake, not a cold start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from configschema import Model
from supervisor.daemon import Supervisor
from supervisor.errors import SupervisorError

Answer = Callable[[Model], Awaitable[str | None]]
"""Make a model answer one token; return why it did not, or None."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


async def preload(supervisor: Supervisor, answer: Answer) -> None:
    """Bring up the models that the configuration names, one after the other; the last stays awake.

    One that fails, or is unknown, does not keep the next from it.
    """
    for name in supervisor.config.hooks.on_startup.preload:
        model = supervisor.config.find(name.strip())
        if model is not None:
            await _preload(supervisor, model, answer)


async def _preload(supervisor: Supervisor, model: Model, answer: Answer) -> None:
    try:
        async with supervisor.lease(model.id):
            failure = await answer(model)
    except SupervisorError as error:
        log.warning(f"<{model.id}> Not preloaded: {error}", model=model.id)
        return
    result = f"its first token failed: {failure}" if failure else "it has answered a token"
    log.info(f"<{model.id}> Model preloaded; {result}", model=model.id)
