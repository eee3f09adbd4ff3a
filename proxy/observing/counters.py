"""Counters of requests and of model steps, for `prometheus`.

Owns what is counted. Plain numbers will do: nobody else counts at the same time, and the counters
of Prometheus' library take a lock for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import accumulate

import attrs

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import Tokens
from supervisor import State
from supervisor.states.causes import Ruling
from supervisor.states.journal import Journal
from supervisor.states.table import Event

CANCELLED = 499  # what the server beneath answers for us
NOBODY = "(unknown)"  # else anybody could make labels without end
BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    *(30, 60, 120, 300, 600, 1800),  # a cold start of a large model takes minutes
)
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
TOKENS = ("prompt", "generated", "cached")


@attrs.define(eq=False)
class Distribution:
    """A histogram of seconds."""

    _counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1), init=False)
    _sum: float = attrs.field(default=0.0, init=False)

    def add(self, seconds: float) -> None:
        """Add one value."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return the counts in Prometheus' form: each bucket includes all lower buckets."""
        bounds = (*(str(float(bound)) for bound in BUCKETS), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True))

    @property
    def is_empty(self) -> bool:
        """Whether the histogram has no value."""
        return not any(self._counts)

    @property
    def sum(self) -> float:
        """The sum of all values, in seconds."""
        return self._sum


Distributions = Mapping[Labels, Distribution]


@attrs.define(eq=False)
class _OfModel:
    """The counters of one model's requests, in one place, because each request adds to all."""

    statuses: Counter[int] = attrs.field(factory=Counter, init=False)
    codes: Counter[str] = attrs.field(factory=Counter, init=False)
    durations: Distribution = attrs.field(factory=Distribution, init=False)
    first_bytes: Distribution = attrs.field(factory=Distribution, init=False)
    waits: Distribution = attrs.field(factory=Distribution, init=False)
    prompt: int = attrs.field(default=0, init=False)
    generated: int = attrs.field(default=0, init=False)
    cached: int = attrs.field(default=0, init=False)


@attrs.define(eq=False)
class Metrics(Journal):
    """All counters of the daemon. It is a journal of the supervisor, too."""

    by_key: Counter[str] = attrs.field(factory=Counter, init=False)
    refused_by_key: Counter[str] = attrs.field(factory=Counter, init=False)
    _models: defaultdict[str, _OfModel] = attrs.field(
        factory=lambda: defaultdict(_OfModel), init=False
    )
    steps: defaultdict[Labels, Distribution] = attrs.field(
        factory=lambda: defaultdict(Distribution), init=False
    )
    failures: Counter[Labels] = attrs.field(factory=Counter, init=False)
    decisions: Counter[Labels] = attrs.field(factory=Counter, init=False)
    _last_ruling: int = attrs.field(default=0, init=False)
    _states: dict[str, State] = attrs.field(factory=dict, init=False)
    _ended_from: dict[str, State] = attrs.field(factory=dict, init=False)

    def count(self, call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
        """Count a request that has ended."""
        counted = self._models[call.model if call.known else NOBODY]
        counted.statuses[answer.outcome or (CANCELLED if call.cancelled else 0)] += 1
        counted.durations.add(now - call.began)
        if call.first_byte is not None:
            counted.first_bytes.add(call.first_byte - call.began)
        if call.waited is not None:
            counted.waits.add(call.waited)
        if answer.problem is not None and answer.problem.given is None:
            counted.codes[str(answer.problem.error()["code"])] += 1
        counted.prompt += tokens.prompt or 0
        counted.generated += tokens.generated or 0
        counted.cached += tokens.cached or 0

    def requests(self) -> dict[Labels, int]:
        """Return the number of requests, by model and status."""
        return {
            (name, str(status)): count
            for name, one in self._models.items()
            for status, count in one.statuses.items()
        }

    def errors(self) -> dict[Labels, int]:
        """Return the number of llamadoze's own errors, by model and code."""
        return {
            (name, code): count
            for name, one in self._models.items()
            for code, count in one.codes.items()
        }

    def tokens(self) -> dict[Labels, int]:
        """Return the number of tokens, by model and kind."""
        return {
            (name, kind): getattr(one, kind)
            for name, one in self._models.items()
            for kind in TOKENS
        }

    def times(self, of: Callable[[_OfModel], Distribution]) -> dict[Labels, Distribution]:
        """Return one histogram of each model. `of` chooses the histogram."""
        found = {(name,): of(one) for name, one in self._models.items()}
        return {labels: one for labels, one in found.items() if not one.is_empty}

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Count a step of a model, and how long it took."""
        before = self._states.get(model, State.STOPPED)
        self._states[model] = state
        if event is Event.STOP:
            self._ended_from[model] = before
        elif event is Event.GAVE_UP:
            self._count_failure(model, self._ended_from.get(model, before))
        if event in STEPS:
            self.steps[model, STEPS[event]].add(took)

    def ruled(self, ruling: Ruling) -> None:
        """Count a decision once. It is reported again if more models must make room."""
        if ruling.number > self._last_ruling:
            self._last_ruling = ruling.number
            self.decisions[ruling.model, ruling.rule] += 1

    def failed(self, model: str, state: State, reason: str) -> None:
        """Count a failure by the state in which it happened."""
        self._count_failure(model, state)

    def _count_failure(self, model: str, state: State) -> None:
        self.failures[model, FAILED_IN.get(state, "exit")] += 1
