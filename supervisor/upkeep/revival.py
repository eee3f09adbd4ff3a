"""A watched model that died while it served: llamadoze starts it again without a request.

Owns how often that is tried. The backoff says when the next start may come, and the scheduler
decides whose turn it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from supervisor.model.server import ModelServer
from supervisor.states.refusals import (
    BackingOff,
    ModelFailed,
    Removed,
    SupervisorError,
    UnknownModel,
    Unloaded,
)
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

BETWEEN_TRIALS = 1.0  # seconds, if the backoff is shorter
LONGEST_PAUSE = 30.0
LONG_ENOUGH = 0.01  # seconds beyond a backoff, so that it is certainly over


async def revive(server: ModelServer, load: Callable[[str], Awaitable[Snapshot]]) -> None:
    """Start a model again, as often as it fails; an operator who unloads it ends that.

    Args:
        server: the model's server.
        load: loads the model, as a request would.
    """
    name = server.model.id
    await server.reached(frozenset({State.FAILED, State.STOPPED}))
    unloads, pause, is_told = server.unloads, 0.0, False
    while server.at.state is State.FAILED:
        await trio.sleep(max(pause, server.held_back + LONG_ENOUGH))
        if server.unloads != unloads:
            return
        try:
            await load(name)
        except (Unloaded, Removed, UnknownModel):
            return
        except SupervisorError as error:
            pause = min(2 * pause or BETWEEN_TRIALS, LONGEST_PAUSE)
            if not (is_told or isinstance(error, BackingOff | ModelFailed)):
                is_told = True
                log.warning(f"<{name}> Not started again yet: {error}", model=name)
        else:
            log.info(f"<{name}> Started again after its failure (watch)", model=name)
            return
