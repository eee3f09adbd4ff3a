"""The model processes: their states, sleep and wake, which run together, which requests wait.

Knows nothing of HTTP: a probe that is passed in asks whether a model server answers.
"""

from supervisor.opening import open_supervisor
from supervisor.states.refusals import (
    BackingOff,
    CannotSleep,
    ModelFailed,
    NoRoom,
    NotRunning,
    Paused,
    QueueFull,
    Removed,
    StillHeld,
    SupervisorError,
    TooManyRequests,
    UnknownModel,
    Unloaded,
)
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State
from supervisor.succession.changes import Changes
from supervisor.supervisor import Supervisor

__all__ = [
    "BackingOff",
    "CannotSleep",
    "Changes",
    "ModelFailed",
    "NoRoom",
    "NotRunning",
    "Paused",
    "QueueFull",
    "Removed",
    "Snapshot",
    "State",
    "StillHeld",
    "Supervisor",
    "SupervisorError",
    "TooManyRequests",
    "UnknownModel",
    "Unloaded",
    "open_supervisor",
]
