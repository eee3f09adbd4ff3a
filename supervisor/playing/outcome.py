"""What is played, and the result: requests, spans of models, and what is counted. Pure facts.

Owns the form of these.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from supervisor.states.table import State


@attrs.frozen
class Arrival:
    """One request of a trace: when it comes, and the seconds that it takes once it is served."""

    at: float
    model: str
    serve: float


@attrs.frozen
class Span:
    """A time in which a model was awake or changed its state, on which GPUs."""

    model: str
    state: State
    begin: float
    end: float
    gpus: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Outcome:
    """The result of a trace.

    Attributes:
        waits: seconds that each request waited, by model, in the order of service.
        activations: starts and wakes.
        spans: which models held memory, and when.
        end: when the last request had ended.
        serving: seconds in which some model had a request.
        changing: seconds without a request in which some model started, stopped, slept or woke.
        refused: requests that nothing could make room for, beside models that may not be moved.
    """

    waits: Mapping[str, list[float]]
    activations: int
    spans: list[Span]
    end: float
    serving: float
    changing: float
    refused: int = 0
