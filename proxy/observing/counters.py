"""Counts of requests and of what the models did, for `prometheus`.

Owns what is counted. Plain numbers will do: nobody else counts at the same time, and the counters
of Prometheus' library take a lock for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate

import attrs

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from supervisor import State
from supervisor.states.journal import Journal
from supervisor.states.table import Event

CANCELLED = 499  # what the server beneath answers for us
NOBODY = "(unknown)"  # else anybody could make labels without end
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STEPS = {
    Event.BECAME_READY: "start",
    Event.ENDED: "stop",
    Event.SLEPT: "sleep",
    Event.WOKE: "wake",
}
FAILED_IN = {
    State.FALLING_ASLEEP: "sleep",
    State.WAKING: "wake",
    State.STARTING: "start",
    State.STOPPING: "stop",
}

Labels = tuple[str, ...]


@attrs.define(eq=False)
class Distribution:
    """How many seconds something took, by buckets."""

    _counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1), init=False)
    _sum: float = attrs.field(default=0.0, init=False)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return the counts as Prometheus has them: each bucket holds all below it, too."""
        bounds = (*(str(float(bound)) for bound in BUCKETS), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        """Seconds of all of them together."""
        return self._sum


Distributions = defaultdict[Labels, Distribution]


def _distributions() -> Distributions:
    return defaultdict(Distribution)


@attrs.define(eq=False)
class Metrics(Journal):
    """What has happened so far; also the supervisor's journal."""

    requests: Counter[Labels] = attrs.field(factory=Counter, init=False)
    by_key: Counter[str] = attrs.field(factory=Counter, init=False)
    durations: Distributions = attrs.field(factory=_distributions, init=False)
    first_bytes: Distributions = attrs.field(factory=_distributions, init=False)
    waits: Distributions = attrs.field(factory=_distributions, init=False)
    tokens: Counter[Labels] = attrs.field(factory=Counter, init=False)
    steps: Distributions = attrs.field(factory=_distributions, init=False)
    failures: Counter[Labels] = attrs.field(factory=Counter, init=False)
    _states: dict[str, State] = attrs.field(factory=dict, init=False)
    _ended_from: dict[str, State] = attrs.field(factory=dict, init=False)

    def count(self, call: Call, answer: Answer, now: float) -> None:
        """Count a request that has ended."""
        model = call.model if call.known else NOBODY
        labels = (model,)
        status = answer.outcome or (CANCELLED if call.cancelled else 0)
        self.requests[model, str(status)] += 1
        self.durations[labels].add(now - call.began)
        if call.first_byte is not None:
            self.first_bytes[labels].add(call.first_byte - call.began)
        if call.waited is not None:
            self.waits[labels].add(call.waited)
        tokens = answer.tokens()
        self.tokens[model, "prompt"] += tokens.prompt or 0
        self.tokens[model, "generated"] += tokens.generated or 0
        self.tokens[model, "cached"] += tokens.cached or 0

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Count a model's step."""
        before = self._states.get(model, State.STOPPED)
        self._states[model] = state
        if event is Event.STOP:
            self._ended_from[model] = before
        elif event is Event.GAVE_UP:
            self.failed(model, self._ended_from.get(model, before))
        if event in STEPS:
            self.steps[model, STEPS[event]].add(took)

    def failed(self, model: str, state: State) -> None:
        """Count a failure by where it happened."""
        self.failures[model, FAILED_IN.get(state, "exit")] += 1
