"""What Prometheus reads: counts of requests and of what the models did, and how they stand.

Owns the names and labels of all metrics. What is true now is read when it is asked for; the rest is
counted as it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

import attrs
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.answer import Answer
from proxy.inflight import Call, InFlight
from supervisor import State, Supervisor
from supervisor.states import Event

M = TypeVar("M", Counter, Histogram)

NOBODY = "(unknown)"  # else anybody could make labels without end
SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
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
    State.READY: "exit",
    State.ASLEEP: "exit",
    State.STOPPING: "stop",
}


@attrs.define(eq=False)
class Metrics:
    """All metrics of a daemon; also the supervisor's journal."""

    _registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False)
    _requests: Counter = attrs.field(init=False)
    _durations: Histogram = attrs.field(init=False)
    _first_bytes: Histogram = attrs.field(init=False)
    _waits: Histogram = attrs.field(init=False)
    _tokens: Counter = attrs.field(init=False)
    _steps: Histogram = attrs.field(init=False)
    _failures: Counter = attrs.field(init=False)
    _children: dict[tuple[object, ...], object] = attrs.field(factory=dict, init=False)
    _states: dict[str, State] = attrs.field(factory=dict, init=False)
    _ended_from: dict[str, State] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        of_model = ("model",)
        self._requests = self._counter("requests", "Requests, by status.", (*of_model, "status"))
        self._durations = self._histogram("request_duration_seconds", "Until the answer's end.")
        self._first_bytes = self._histogram(
            "time_to_first_byte_seconds", "From the request to the answer's first byte."
        )
        self._waits = self._histogram(
            "queue_wait_seconds", "Until a request's model was up and its turn had come."
        )
        self._tokens = self._counter(
            "tokens", "Tokens, as model servers count them.", (*of_model, "kind")
        )
        self._steps = self._histogram(
            "model_step_duration_seconds", "Starts, stops, sleeps and wakes.", (*of_model, "step")
        )
        self._failures = self._counter(
            "model_failures", "What failed of a model; it was stopped then.", (*of_model, "reason")
        )
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def _counter(self, name: str, text: str, labels: Iterable[str]) -> Counter:
        return Counter(f"llamadoze_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, labels: Iterable[str] = ("model",)) -> Histogram:
        return Histogram(f"llamadoze_{name}", text, labels, registry=self._registry, buckets=SHORT)

    def follow(self, supervisor: Supervisor, in_flight: InFlight) -> None:
        """Tell how these stand, too, whenever that is asked for."""
        self._registry.register(_Standings(supervisor, in_flight))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def count(self, call: Call, answer: Answer, now: float) -> None:
        """Count a request that has ended."""
        model = call.model if call.known else NOBODY
        self._child(self._requests, model, str(answer.status)).inc()
        self._child(self._durations, model).observe(now - call.began)
        if call.first_byte is not None:
            self._child(self._first_bytes, model).observe(call.first_byte - call.began)
        if call.waited is not None:
            self._child(self._waits, model).observe(call.waited)
        tokens = answer.tokens()
        for kind in ("prompt", "generated", "cached"):
            if number := getattr(tokens, kind):
                self._child(self._tokens, model, kind).inc(number)

    def _child(self, metric: M, *labels: str) -> M:
        """Return a metric's child; the library takes longer to find one than to count."""
        key = (id(metric), *labels)
        if (found := self._children.get(key)) is None:
            found = self._children[key] = metric.labels(*labels)
        return cast("M", found)

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Count a model's step."""
        before = self._states.get(model, State.STOPPED)
        self._states[model] = state
        if event is Event.STOP:
            self._ended_from[model] = before
        elif event is Event.GAVE_UP:
            self.failed(model, self._ended_from.get(model, before))
        if event in STEPS:
            self._steps.labels(model, STEPS[event]).observe(took)

    def failed(self, model: str, state: State) -> None:
        """Count a failure by where it happened."""
        self._failures.labels(model, FAILED_IN.get(state, "exit")).inc()


@attrs.frozen
class _Standings(Collector):
    """How models and requests stand at the moment they are asked for."""

    supervisor: Supervisor
    in_flight: InFlight

    def collect(self) -> Iterator[Metric]:
        servers = self.supervisor.servers
        states = _gauge("model_state", "1 for the state a model is in.", "model", "state")
        running = _gauge("requests_in_flight", "Requests that are being answered.", "model")
        waiting = _gauge("requests_waiting", "Requests that wait for a model.", "model")
        for name, server in sorted(servers.items()):
            snapshot = server.snapshot()
            for state in State:
                states.add_metric([name, state.value], state is snapshot.state)
            running.add_metric([name], snapshot.in_flight)
            waiting.add_metric([name], server.usage.waiting)
        forwarded = _gauge("requests_open", "Requests that were read and have not ended.")
        forwarded.add_metric([], len(list(self.in_flight)))
        paused = _gauge("paused", "Whether all models were told to make room for others.")
        paused.add_metric([], self.supervisor.is_paused)
        yield from (states, running, waiting, forwarded, paused)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"llamadoze_{name}", text, labels=labels)
