"""What Prometheus reads: counts of requests and of what the models did, and how they stand.

Owns the names and labels of all metrics. What is true now is read when it is asked for; the rest is
counted as it happens, in plain numbers: one task counts, and the library's own counters take a lock
for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate

import attrs
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy.answer import Answer
from proxy.inflight import Call, InFlight
from supervisor import State, Supervisor
from supervisor.states import Event

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

    def add_to(self, family: HistogramMetricFamily, labels: Labels) -> None:
        """Say it as Prometheus has histograms: each bucket holds all below it, too."""
        bounds = (*(str(float(bound)) for bound in BUCKETS), "+Inf")
        family.add_metric(
            labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum
        )


Distributions = defaultdict[Labels, Distribution]


def _distributions() -> Distributions:
    return defaultdict(Distribution)


@attrs.define(eq=False)
class Metrics(Collector):
    """All metrics of a daemon; also the supervisor's journal."""

    _registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False)
    _requests: Counter[Labels] = attrs.field(factory=Counter, init=False)
    _durations: Distributions = attrs.field(factory=_distributions, init=False)
    _first_bytes: Distributions = attrs.field(factory=_distributions, init=False)
    _waits: Distributions = attrs.field(factory=_distributions, init=False)
    _tokens: Counter[Labels] = attrs.field(factory=Counter, init=False)
    _steps: Distributions = attrs.field(factory=_distributions, init=False)
    _failures: Counter[Labels] = attrs.field(factory=Counter, init=False)
    _states: dict[str, State] = attrs.field(factory=dict, init=False)
    _ended_from: dict[str, State] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def follow(self, supervisor: Supervisor, in_flight: InFlight) -> None:
        """Tell how these stand, too, whenever that is asked for."""
        self._registry.register(_Standings(supervisor, in_flight))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def count(self, call: Call, answer: Answer, now: float) -> None:
        """Count a request that has ended."""
        model = call.model if call.known else NOBODY
        labels = (model,)
        status = answer.status or (CANCELLED if call.cancelled else 0)
        self._requests[model, str(status)] += 1
        self._durations[labels].add(now - call.began)
        if call.first_byte is not None:
            self._first_bytes[labels].add(call.first_byte - call.began)
        if call.waited is not None:
            self._waits[labels].add(call.waited)
        tokens = answer.tokens()
        self._tokens[model, "prompt"] += tokens.prompt or 0
        self._tokens[model, "generated"] += tokens.generated or 0
        self._tokens[model, "cached"] += tokens.cached or 0

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Count a model's step."""
        before = self._states.get(model, State.STOPPED)
        self._states[model] = state
        if event is Event.STOP:
            self._ended_from[model] = before
        elif event is Event.GAVE_UP:
            self.failed(model, self._ended_from.get(model, before))
        if event in STEPS:
            self._steps[model, STEPS[event]].add(took)

    def failed(self, model: str, state: State) -> None:
        """Count a failure by where it happened."""
        self._failures[model, FAILED_IN.get(state, "exit")] += 1

    def wrote(self, model: str, output: bytes) -> None:
        """Count nothing: what a model writes is no number."""

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        yield _counter("requests", "Requests, by status.", self._requests, "status")
        yield _histogram("request_duration", "Until the answer's end.", self._durations)
        yield _histogram("time_to_first_byte", "Until the answer's first byte.", self._first_bytes)
        yield _histogram("queue_wait", "Until the model was up and its turn came.", self._waits)
        yield _counter("tokens", "Tokens, as model servers count them.", self._tokens, "kind")
        text = "Starts, stops, sleeps and wakes."
        yield _histogram("model_step_duration", text, self._steps, "step")
        text = "What failed of a model, which was stopped then."
        yield _counter("model_failures", text, self._failures, "reason")


@attrs.frozen
class _Standings(Collector):
    """How models and requests stand at the moment they are asked for."""

    supervisor: Supervisor
    in_flight: InFlight

    def collect(self) -> Iterator[Metric]:
        states = _gauge("model_state", "1 for the state a model is in.", "model", "state")
        running = _gauge("requests_in_flight", "Requests that are being answered.", "model")
        waiting = _gauge("requests_waiting", "Requests that wait for a model.", "model")
        for name, server in sorted(self.supervisor.servers.items()):
            snapshot = server.snapshot()
            for state in State:
                states.add_metric([name, state.value], state is snapshot.state)
            running.add_metric([name], snapshot.in_flight)
            waiting.add_metric([name], server.usage.waiting)
        forwarded = _gauge("requests_open", "Requests that have not ended.")
        forwarded.add_metric([], len(list(self.in_flight)))
        paused = _gauge("paused", "Whether all models were told to make room for others.")
        paused.add_metric([], self.supervisor.is_paused)
        yield from (states, running, waiting, forwarded, paused)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"llamadoze_{name}", text, labels=labels)


def _counter(name: str, text: str, counts: Mapping[Labels, int], label: str) -> Metric:
    family = CounterMetricFamily(f"llamadoze_{name}", text, labels=("model", label))
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _histogram(name: str, text: str, found: Distributions, *labels: str) -> Metric:
    family = HistogramMetricFamily(f"llamadoze_{name}_seconds", text, labels=("model", *labels))
    for key, distribution in sorted(found.items()):
        distribution.add_to(family, key)
    return family
