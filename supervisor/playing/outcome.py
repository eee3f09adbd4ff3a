"""What is played, and what came of it: requests, times of models, and what is counted. Pure facts.

Owns the form of these.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from supervisor.states.table import State


@attrs.frozen
class Arrival:
    """One request of a trace: when it comes, and the seconds it takes once it is served."""

    at: float
    model: str
    serve: float


@attrs.frozen
class Span:
    """A time in which a model was awake or moved: what it did, from when to when, on which GPUs."""

    model: str
    state: State
    begin: float
    end: float
    gpus: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a trace.

    Attributes:
        waits: seconds each request waited, by model, in the order of their service.
        activations: starts and wakes.
        spans: who held memory, and when.
        end: when the last request had ended.
        serving: seconds in which some model had a request.
        changing: seconds in which none had, and some model started, stopped, slept or woke.
        refused: requests that nothing could make room for, beside what may not be moved.
    """

    waits: Mapping[str, list[float]]
    activations: int
    spans: list[Span]
    end: float
    serving: float
    changing: float
    refused: int = 0
