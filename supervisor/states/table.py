"""The life of a model server: its states, and the table of steps between them.

Owns which step may follow which. "Busy" is no state but a number of leases. The reason of a failure
is data beside the state.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """The state of a model server; the value is what ``/running`` shows."""

    STOPPED = "stopped"
    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    FALLING_ASLEEP = "sleepPending"
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(Enum):
    """What happens to a model server."""

    QUEUE = auto()
    START = auto()
    BECAME_READY = auto()
    SLEEP = auto()
    SLEPT = auto()
    WAKE = auto()
    WOKE = auto()
    STOP = auto()
    ENDED = auto()
    GAVE_UP = auto()
    ADOPTED_READY = auto()
    ADOPTED_ASLEEP = auto()
    FOUND_ASLEEP = auto()


class Wish(Enum):
    """What is wanted of a model server; the latest wish counts.

    SLEEP and DRAIN let its requests end first; STOP cuts them off. DRAIN ends in a stop, too.
    """

    SERVE = auto()
    SLEEP = auto()
    DRAIN = auto()
    STOP = auto()


ENDED = frozenset({State.STOPPED, State.FAILED})
HAS_PROCESS = frozenset(State) - ENDED
HOLDS_MEMORY = HAS_PROCESS - {State.ASLEEP}  # or gets it next, as in a cluster's queue
AT_REST = frozenset(State) - HOLDS_MEMORY
BETWEEN_SLEEP_AND_WAKE = frozenset({State.FALLING_ASLEEP, State.ASLEEP, State.WAKING})
BEFORE_READY = frozenset({State.QUEUED, State.STARTING})
IN_MOTION = frozenset({State.QUEUED, State.STARTING, State.WAKING})
ON_THE_WAY_OUT = frozenset({State.FALLING_ASLEEP, State.STOPPING})

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.FAILED, Event.START): State.STARTING,
    # A place may let a server wait until there is room for it.
    (State.STOPPED, Event.QUEUE): State.QUEUED,
    (State.FAILED, Event.QUEUE): State.QUEUED,
    (State.QUEUED, Event.START): State.STARTING,
    (State.STARTING, Event.BECAME_READY): State.READY,
    (State.READY, Event.SLEEP): State.FALLING_ASLEEP,
    (State.FALLING_ASLEEP, Event.SLEPT): State.ASLEEP,
    (State.ASLEEP, Event.WAKE): State.WAKING,
    (State.WAKING, Event.WOKE): State.READY,
    # A process that ended by itself passes through STOPPING too: its children may still live.
    **{(state, Event.STOP): State.STOPPING for state in HAS_PROCESS - {State.STOPPING}},
    (State.STOPPING, Event.ENDED): State.STOPPED,
    (State.STOPPING, Event.GAVE_UP): State.FAILED,
    # A process of an earlier daemon continues in the state that it was in.
    (State.STOPPED, Event.ADOPTED_READY): State.READY,
    (State.STOPPED, Event.ADOPTED_ASLEEP): State.ASLEEP,
    (State.QUEUED, Event.ADOPTED_READY): State.READY,  # on another machine that takes a while
    (State.QUEUED, Event.ADOPTED_ASLEEP): State.ASLEEP,
    # A server that something else put to sleep, or that was asleep already.
    (State.STARTING, Event.FOUND_ASLEEP): State.ASLEEP,
    (State.READY, Event.FOUND_ASLEEP): State.ASLEEP,
}


class IllegalStep(Exception):
    """An event that cannot happen in a state: a bug in llamadoze. Nothing was changed."""

    def __init__(self, state: State, event: Event) -> None:
        self.state = state
        self.event = event
        super().__init__(f"{event.name} cannot happen in state {state.name}")


def step(state: State, event: Event) -> State:
    """Return the state that follows.

    Raises:
        IllegalStep: the table has no such step.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalStep(state, event) from None
