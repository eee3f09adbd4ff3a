"""What a decision is made from, and what it says should happen: who waits, who comes, who leaves.

Owns these facts. How they are found is `turns`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import attrs

from supervisor.states.table import Wish


@attrs.frozen(kw_only=True)
class Demand:
    """All who wait for one model.

    Attributes:
        model: its id.
        since: when the first of them came, on Trio's clock.
        count: how many they are.
        priority: of the model; higher goes first.
        turn: where it stands on the account of turns of API keys; lower goes first.
    """

    model: str
    since: float
    count: int = 1
    priority: int = 0
    turn: float = 0.0


@attrs.frozen(kw_only=True)
class Patience:
    """How long those who wait, and those who are served, bear with each other, in seconds.

    Attributes:
        max_wait: behind a model in use, until that is closed for newcomers; 0 is without end, as in
            llama-swap.
        min_active: that a model which came up is kept, even if it is idle and others wait.
    """

    max_wait: float = 10
    min_active: float = 0


@attrs.frozen(kw_only=True)
class Decision:
    """What should happen now.

    Attributes:
        admit: models whose waiters all get a lease.
        wishes: what to ask of which model server.
        closed: models that serve, but let nobody in any more.
        cut: models whose requests have held up others for longer than they may.
        gpus: where models are to come up that are asked to serve, if that is chosen.
        causes: for each model that is asked to rest or to end, the one that needs its room.
        behind: for each model that is waited for, those that keep it from its turn.
        closing: when these will be closed for newcomers at the latest, on Trio's clock.
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
