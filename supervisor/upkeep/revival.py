"""A model that is watched and has died while it served: started again before anybody asks.

Owns how often that is tried. When the next start may come is the backoff's, and whose turn it is
the scheduler's.
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

BETWEEN_TRIALS = 1.0  # seconds, where the backoff is shorter
LONGEST_PAUSE = 30.0
LONG_ENOUGH = 0.01  # seconds beyond a backoff, so that it is over for certain


async def revive(server: ModelServer, load: Callable[[str], Awaitable[Snapshot]]) -> None:
    """Bring a model up again, as often as it fails; an operator who unloads it ends that.

    Args:
        server: the model's.
        load: brings it up, as a request would.
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
            log.info(f"<{name}> Was started again after its failure (watch)", model=name)
            return
