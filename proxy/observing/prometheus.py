"""The text that Prometheus reads: counters, and how models and requests stand at that moment.

Owns the names and labels of all metrics. Imported when they are first asked for: Prometheus'
library brings a web server of its own, which would make each start 20 ms longer.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

import attrs
import trio
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

from proxy.forwarding.inflight import InFlight
from proxy.lifecycle.reloading import Reloader
from proxy.observing.counters import Distributions, Labels, Metrics
from supervisor import State, Supervisor

MOST_LOOKED_AT = 1000  # of those who wait, the oldest first


def exposed(metrics: Metrics, reloader: Reloader, in_flight: InFlight) -> bytes:
    """Return all metrics in Prometheus' text format, version 0.0.4.

    Args:
        metrics: the counters.
        reloader: the models and their configuration.
        in_flight: the requests that have not ended.
    """
    registry = CollectorRegistry()
    registry.register(_Counted(metrics))
    registry.register(_Standings(reloader, in_flight))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return generate_latest(registry)


@attrs.frozen
class _Counted(Collector):
    """The counters."""

    metrics: Metrics

    def collect(self) -> Iterator[Metric]:
        counted = self.metrics
        yield _counter(
            "requests", "Requests that have ended, by status.", counted.requests(), "status"
        )
        text = "Requests that llamadoze answered with an error of its own, by the error's code."
        yield _counter("errors", text, counted.errors(), "code")
        yield _by_key("requests", "Requests with an API key that has a name.", counted.by_key)
        text = "Requests refused because of the limits of their API key."
        yield _by_key("refused", text, counted.refused_by_key)
        yield _histogram(
            "request_duration",
            "Time until the end of the answer.",
            counted.times(lambda one: one.durations),
        )
        text = "Time to first byte of the answer."
        yield _histogram("time_to_first_byte", text, counted.times(lambda one: one.first_bytes))
        text = "Time until the model was ready and the request had its turn."
        yield _histogram("queue_wait", text, counted.times(lambda one: one.waits))
        yield _counter(
            "tokens", "Tokens, as the model servers report them.", counted.tokens(), "kind"
        )
        text = "Time that each start, stop, sleep and wake took."
        yield _histogram("model_step_duration", text, counted.steps, "step")
        text = "Failures of a model, by what failed."
        yield _counter("model_failures", text, counted.failures, "reason")
        text = "Decisions to start or wake a model, by the rule that says who runs beside whom."
        yield _counter("decisions", text, counted.decisions, "rule")


@attrs.frozen
class _Standings(Collector):
    """The gauges: how models and requests stand now."""

    reloader: Reloader
    in_flight: InFlight

    def collect(self) -> Iterator[Metric]:
        supervisor = self.reloader.supervisor
        states = _gauge(
            "model_state",
            "1 for the present state of the model, 0 for the others.",
            "model",
            "state",
        )
        running = _gauge("requests_in_flight", "Requests in flight.", "model")
        waiting = _gauge("requests_waiting", "Requests that wait for the model.", "model")
        for name, server in sorted(supervisor.servers.items()):
            for state in State:
                states.add_metric([name, state.value], state is server.at.state)
            running.add_metric([name], server.usage.in_flight)
            waiting.add_metric([name], server.usage.waiting)
        yield from _sleep(supervisor)
        yield from _files(self.reloader)
        text = "1 while something of the model could not be ended."
        left = _gauge("leftovers", text, "model")
        for name, server in sorted(supervisor.servers.items()):
            left.add_metric([name], bool(server.at.left))
        yield left
        forwarded = _gauge("requests_open", "Requests that have not ended.")
        forwarded.add_metric([], len(list(self.in_flight)))
        yield _oldest(supervisor)
        about = _gauge("build_info", "1, with the versions as labels.", "version", "python")
        about.add_metric([version("llamadoze"), platform.python_version()], 1)
        yield about
        paused = _gauge("paused", "1 during a pause.")
        paused.add_metric([], supervisor.is_paused)
        tasks = _gauge("tasks", "Tasks of the daemon.")
        tasks.add_metric([], trio.lowlevel.current_statistics().tasks_living)
        yield from (states, running, waiting, forwarded, paused, tasks)


def _sleep(supervisor: Supervisor) -> Iterator[Metric]:
    """Yield the metrics of each model's sleep, and of failed starts."""
    trusted = _gauge(
        "sleep_trusted", "1 while a model that can sleep is allowed to sleep.", "model"
    )
    failed = _gauge("sleep_failures", "Failed sleeps and wakes in a row.", "model")
    freed = _gauge("sleep_freed_bytes", "Memory that the last sleep freed.", "model", "memory")
    left = _gauge("sleep_left_bytes", "Memory that the last sleep left.", "model", "memory")
    text = "Memory that each sleep leaves in addition, on average over the process."
    trend = _gauge("sleep_trend_bytes", text, "model", "memory")
    crashes = _gauge(
        "start_failures", "Failures in a row. Each failure doubles the backoff.", "model"
    )
    for name, server in sorted(supervisor.servers.items()):
        crashes.add_metric([name], server.backoff.failures)
        if not server.model.can_sleep:
            continue
        trusted.add_metric([name], server.sleeping.trust.holds)
        failed.add_metric([name], server.sleeping.trust.failures)
        for kind, amount in server.sleeping.amounts.items():
            labels = [name, kind.lower()]
            freed.add_metric(labels, amount.freed)
            left.add_metric(labels, amount.left)
        for kind, history in server.sleeping.histories.items():
            trend.add_metric([name, kind.lower()], history.trend)
    yield from (trusted, failed, freed, left, trend, crashes)


def _files(reloader: Reloader) -> Iterator[Metric]:
    """Yield whether the files are in effect, by Prometheus' own names for this."""
    text = "1 if the last reload put the configuration files into effect, 0 if it was refused."
    good = _gauge("config_last_reload_successful", text)
    good.add_metric([], reloader.is_in_effect)
    text = "When the configuration files last took effect, in seconds since 1970."
    since = _gauge("config_last_reload_success_timestamp_seconds", text)
    since.add_metric([], reloader.in_effect_since)
    yield from (good, since)


def _oldest(supervisor: Supervisor) -> Metric:
    """Return how long the oldest request of each model has waited."""
    now, since = trio.current_time(), dict[str, float]()
    for one in supervisor.queue(MOST_LOOKED_AT):
        since[one.model] = min(one.since, since.get(one.model, one.since))
    oldest = _gauge("oldest_wait_seconds", "How long the oldest request has waited.", "model")
    for name in sorted(supervisor.servers):
        oldest.add_metric([name], now - since.get(name, now))
    return oldest


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"llamadoze_{name}", text, labels=labels)


def _by_key(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"llamadoze_key_{name}", text, labels=("key",))
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def _counter(name: str, text: str, counts: Mapping[Labels, int], label: str) -> Metric:
    family = CounterMetricFamily(f"llamadoze_{name}", text, labels=("model", label))
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _histogram(name: str, text: str, found: Distributions, *labels: str) -> Metric:
    family = HistogramMetricFamily(f"llamadoze_{name}_seconds", text, labels=("model", *labels))
    for key, distribution in sorted(found.items()):
        family.add_metric(key, distribution.buckets(), distribution.sum)
    return family
