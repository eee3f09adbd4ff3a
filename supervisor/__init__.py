"""The model processes: their states, sleep and wake, who runs beside whom, who waits for what.

Knows nothing of HTTP: whether a model server answers is asked through a probe that is passed in.
"""

from supervisor.changes import Changes
from supervisor.daemon import Supervisor, open_supervisor
from supervisor.errors import (
    BackingOff,
    CannotSleep,
    ModelFailed,
    NotRunning,
    Paused,
    QueueFull,
    Removed,
    SupervisorError,
    TooManyRequests,
    UnknownModel,
    Unloaded,
)
from supervisor.snapshot import Snapshot
from supervisor.states import State

__all__ = [
    "BackingOff",
    "CannotSleep",
    "Changes",
    "ModelFailed",
    "NotRunning",
    "Paused",
    "QueueFull",
    "Removed",
    "Snapshot",
    "State",
    "Supervisor",
    "SupervisorError",
    "TooManyRequests",
    "UnknownModel",
    "Unloaded",
    "open_supervisor",
]
