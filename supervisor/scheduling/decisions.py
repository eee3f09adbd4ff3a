"""What a decision is made from, and what it says should happen: who waits, runs, or makes room.

Owns these facts. `turns` makes the decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import attrs

from supervisor.states.table import Wish


@attrs.frozen(kw_only=True)
class Demand:
    """All requests that wait for one model.

    Attributes:
        model: its id.
        since: when the first request came, on Trio's clock.
        count: how many requests wait.
        priority: the model's priority; higher goes first.
        turn: its position on the account of API keys' turns; lower goes first.
    """

    model: str
    since: float
    count: int = 1
    priority: int = 0
    turn: float = 0.0


@attrs.frozen(kw_only=True)
class Patience:
    """How long waiting requests and requests in flight tolerate each other, in seconds.

    Attributes:
        max_wait: the wait behind a model in use, until that model is closed for newcomers; 0 is no
        limit, as in llama-swap.
        min_active: how long a model is kept after it became ready, even if idle while others wait.
    """

    max_wait: float = 10
    min_active: float = 0


@attrs.frozen(kw_only=True)
class Decision:
    """What should happen now.

    Attributes:
        admit: models whose waiting requests all get a lease.
        wishes: what to ask of which model server.
        closed: models that serve, but accept no newcomers.
        cut: models whose requests have delayed others for longer than they may.
        gpus: the GPUs for models that are asked to serve, if these are chosen.
        causes: for each model that is asked to rest or to end, the model that needs its room.
        behind: for each model that is waited for, the models that keep it from its turn.
        closing: when these models are closed for newcomers at the latest, on Trio's clock.
        until: when to decide again, even if nothing has happened by then.
    """

    admit: frozenset[str] = frozenset()
    wishes: Mapping[str, Wish] = attrs.field(factory=dict)
    closed: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    gpus: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    causes: Mapping[str, str] = attrs.field(factory=dict)
    behind: Mapping[str, frozenset[str]] = attrs.field(factory=dict, eq=False)
    closing: Mapping[str, float] = attrs.field(factory=dict, eq=False)
    until: float = inf


NOTHING = Decision()
