"""Preloading: models that start before any request, by ``hooks.on_startup.preload``.

Each model produces one token, so that its first user does not wait for anything. A model that must
make room for the next one sleeps if it can, so its first user waits for a wake, not for a cold
start.
"""

from __future__ import annotations

import structlog
import trio

from configschema import Model
from supervisor.sleep.contact import OneToken
from supervisor.states.causes import Asker, Why
from supervisor.states.durations import seconds
from supervisor.states.refusals import SupervisorError
from supervisor.supervisor import Supervisor

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


async def preload(supervisor: Supervisor, one_token: OneToken) -> None:
    """Load the models that the configuration names, one after another. The last stays awake.

    If a model fails or is unknown, the next one is loaded all the same.
    """
    for name in supervisor.config.hooks.on_startup.preload:
        model = supervisor.config.find(name.strip())
        if model is not None:
            await _preload(supervisor, model, one_token)


async def _preload(supervisor: Supervisor, model: Model, one_token: OneToken) -> None:
    try:
        async with supervisor.lease(model.id, Asker(why=Why.PRELOAD)) as server:
            failure = await _first_token(server.model, one_token, server.limits.canary)
    except SupervisorError as error:
        log.warning(f"<{model.id}> Not preloaded: {error}", model=model.id)
        return
    result = f"its first token failed: {failure}" if failure else "it has answered a token"
    log.info(f"<{model.id}> Model preloaded; {result}", model=model.id)


async def _first_token(model: Model, one_token: OneToken, limit: float) -> str | None:
    """Return why a model produced no token, or None."""
    with trio.move_on_after(limit):
        return (await one_token(model, "")).failure
    return f"no token within {seconds(limit)}"
