"""Spans of requests for OpenTelemetry: what each request waited for, and how its model answered.

Owns which spans there are and what they contain. The SDK makes, samples and sends them. This
module is imported only if a collector is named, because the SDK takes 0.2 s to load.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version

import attrs
import structlog
import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import Tokens
from proxy.history.spans import Row, Timeline
from proxy.http.headers import Header
from proxy.http.origin import Origin
from proxy.naming.routes import ASKED, POSTED
from supervisor.states.racing import race

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

PROPAGATOR = TraceContextTextMapPropagator()
CONTEXT = {name.encode() for name in PROPAGATOR.fields}  # the headers of W3C Trace Context
NAMED = {*POSTED, *ASKED}  # paths that name a span; all others may be without end
STEPS = {
    "queued": "queue",
    "starting": "start",
    "waking": "wake",
    "sleepPending": "sleep",
    "stopping": "stop",
}
"""The states that are spans of their own, and what these are called."""
COMING_UP = ("queued", "starting", "waking")
LOST = "Internal error; a request is missing in the traces"
MOST_STEPS = 50  # that are told of one wait
LONGEST_REASON = 200  # characters; an error of a model server may hold a prompt
LOOKED_AT = 500  # of the newest steps; a swap has few
LEAST_WAIT = 0.001  # seconds; a shorter wait has no span
LAST_SPANS = 3.0  # seconds that the collector has at the daemon's end
BETWEEN_FAILURES = 600.0  # seconds, in which the SDK's failures are told of once


@attrs.define(eq=False)
class NowAndThen(logging.Filter):
    """Lets one line pass in ten minutes; without a collector, every batch fails."""

    _last: float = attrs.field(default=-BETWEEN_FAILURES, init=False)

    def filter(self, _: logging.LogRecord) -> bool:
        """Whether this line is written."""
        now = time.monotonic()
        if now - self._last < BETWEEN_FAILURES:
            return False
        self._last = now
        return True


@attrs.frozen
class Begun:
    """The spans of a request that has been sent to its model server."""

    request: Span
    upstream: Span


@attrs.define(eq=False)
class Tracing:
    """Makes one span for each request to a model, with children for what the request waited for.

    The span of a request ends with its answer. Most child spans are made then, too, from the known
    times of the request and of the models' steps.

    Attributes:
        timeline: the models' steps and decisions.
    """

    timeline: Timeline
    _tracer: Tracer
    _provider: TracerProvider
    _begun: dict[Call, Begun] = attrs.field(factory=dict, init=False)

    def upstream(self, call: Call, origin: Origin, headers: list[Header]) -> list[Header]:
        """Begin the span of an upstream request; return its headers with this span as the parent.

        Args:
            call: the client's request.
            origin: the server that is asked.
            headers: of the upstream request.
        """
        try:
            return self._begin_upstream(call, origin, headers)
        except Exception:  # a bug here, or in the SDK, must not fail a request
            log.exception(LOST)
            return headers

    def _begin_upstream(self, call: Call, origin: Origin, headers: list[Header]) -> list[Header]:
        request = self._begin(call)
        upstream = self._tracer.start_span(
            "upstream",
            set_span_in_context(request),
            SpanKind.CLIENT,
            {"server.address": origin.host, "server.port": origin.port},
            start_time=_moment(call, time.monotonic()),
        )
        self._begun[call] = Begun(request, upstream)
        carried: dict[str, str] = {}
        PROPAGATOR.inject(carried, set_span_in_context(upstream))
        kept = [pair for pair in headers if pair[0] not in CONTEXT]
        return [*kept, *((name.encode(), value.encode()) for name, value in carried.items())]

    def finished(self, call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
        """End the span of a request, and those of what it waited for."""
        try:
            self._end(call, answer, tokens, now)
        except Exception:  # as above
            log.exception(LOST)

    def _end(self, call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
        begun = self._begun.pop(call, None)
        request = begun.request if begun else self._begin(call)
        if request.is_recording():
            inside = set_span_in_context(request)
            self._tell_wait(call, now, inside, asked=begun is not None)
            if begun:
                _end_upstream(begun.upstream, call, answer, now)
            request.set_attributes(dict(_facts(call, answer, tokens)))
            if answer.outcome >= 500 and answer.problem:
                request.set_status(_failed(answer.problem.message))
        request.end(_moment(call, now))

    async def end(self, hurry: trio.Event) -> None:
        """Send what was not sent yet, for `LAST_SPANS` at most.

        Args:
            hurry: set when the daemon must end at once.
        """
        send = partial(trio.to_thread.run_sync, self._provider.shutdown, abandon_on_cancel=True)
        with trio.move_on_after(LAST_SPANS):
            try:
                await race(send, hurry.wait)
            except* RuntimeError:  # there is no thread left, and no reason to fail
                log.warning("The last spans are lost: the system has no thread left")

    def _begin(self, call: Call) -> Span:
        return self._tracer.start_span(
            f"{call.method} {call.path}" if call.path in NAMED else call.method,
            PROPAGATOR.extract(_context_in(call.headers)),
            SpanKind.SERVER,
            {"http.request.method": call.method, "url.path": call.path},
            start_time=_moment(call, call.began),
        )

    def _tell_wait(self, call: Call, now: float, inside: Context, *, asked: bool) -> None:
        """Make the span of a request's wait for its turn, and those of the steps within it.

        A request to a peer waits for nothing here: its server is asked at once.
        """
        if not call.known:
            return
        waited = call.waited if call.waited is not None else 0.0 if asked else now - call.began
        if waited < LEAST_WAIT:
            return
        since, until = call.timestamp, call.timestamp + waited
        wait = self._tracer.start_span("wait", inside, start_time=_ns(since))
        wait.set_attribute("llamadoze.model", call.model)
        for row in steps_of(self.timeline, call.model, since, until)[-MOST_STEPS:]:
            self._tell_step(row, since, until, set_span_in_context(wait))
        wait.end(_ns(until))

    def _tell_step(self, row: Row, since: float, until: float, inside: Context) -> None:
        """Make the span of one model's step, as far as the request has waited for it."""
        end = until if row["end"] is None else row["end"]
        step = self._tracer.start_span(
            f"{STEPS[row['state']]} {row['model']}",
            inside,
            attributes={
                "llamadoze.model": row["model"],
                "llamadoze.cause": row["cause"]["why"],
                "llamadoze.duration_s": round(end - row["begin"], 3),
            },
            start_time=_ns(max(since, row["begin"])),
        )
        for kind, amount in (row.get("proof") or {}).get("memory", {}).items():
            step.set_attribute(f"llamadoze.{kind}.freed_bytes", amount["freed"])
            step.set_attribute(f"llamadoze.{kind}.left_bytes", amount["left"])
        if reason := row.get("failure"):
            step.set_status(_failed(reason))
        step.end(_ns(min(until, end)))


def open_tracing(timeline: Timeline) -> Tracing:
    """Return the tracing of a daemon; the environment says where spans go, as the SDK reads it.

    Args:
        timeline: what happens to the models.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry"):  # loggers do not inherit filters
            logging.getLogger(name).addFilter(NowAndThen())
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))  # sends them from a thread
    return Tracing(timeline, provider.get_tracer("llamadoze", version("llamadoze")), provider)


def _resource() -> Resource:
    """Return what all spans say of the daemon: its own name, unless the environment has another."""
    found = Resource.create()
    named = str(found.attributes.get(SERVICE_NAME, "unknown_service"))
    own = {SERVICE_VERSION: version("llamadoze")}
    if named.startswith("unknown_service"):
        own[SERVICE_NAME] = "llamadoze"
    return found.merge(Resource(own))


def steps_of(timeline: Timeline, model: str, since: float, until: float) -> list[Row]:
    """Return the steps that a request for a model has waited for, in the order of their beginning.

    These are the steps by which the model started or woke, and those by which others left for it.

    Args:
        timeline: what happened to the models.
        model: that was asked for.
        since: when the wait began, in seconds since 1970.
        until: when it ended.
    """
    decisions = timeline.decisions.last(LOOKED_AT)
    for_it = {one["id"] for one in decisions if one["model"] == model}
    return [
        row
        for row in timeline.spans.last(LOOKED_AT)
        if row["begin"] < until
        and (row["end"] is None or row["end"] > since)
        and (
            row["state"] in COMING_UP
            if row["model"] == model
            else row["state"] in STEPS and row["cause"].get("decision") in for_it
        )
    ]


def _context_in(headers: Sequence[Header]) -> dict[str, str]:
    """Return the headers of W3C Trace Context; lines of the same name are one (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in CONTEXT:
            text = value.decode("latin-1")
            key = name.decode()
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


def _end_upstream(upstream: Span, call: Call, answer: Answer, now: float) -> None:
    if call.first_byte is not None:
        upstream.add_event("first byte", timestamp=_moment(call, call.first_byte))
    if answer.status:
        upstream.set_attribute("http.response.status_code", answer.status)
    if answer.problem:
        upstream.set_status(_failed(answer.problem.message))
    upstream.end(_moment(call, now))


def _facts(call: Call, answer: Answer, tokens: Tokens) -> Iterator[tuple[str, str | int | bool]]:
    """Yield the attributes of a request's span, by OpenTelemetry's names where it has them."""
    yield "llamadoze.request_id", call.request_id
    yield "client.address", call.client
    if call.known:
        yield "gen_ai.request.model", call.model
    if call.key:
        yield "llamadoze.key", call.key
    if answer.outcome:
        yield "http.response.status_code", answer.outcome
    if answer.problem:
        yield "error.type", str(answer.outcome)
    elif not answer.said_all:
        yield "llamadoze.ended_early", True
    if tokens.prompt is not None:
        yield "gen_ai.usage.input_tokens", tokens.prompt
    if tokens.generated is not None:
        yield "gen_ai.usage.output_tokens", tokens.generated


def _failed(reason: str) -> Status:
    text = reason[:LONGEST_REASON].encode("utf-8", "replace").decode()
    return Status(StatusCode.ERROR, text)


def _moment(call: Call, monotonic: float) -> int:
    """Return a moment of the monotonic clock in nanoseconds since 1970."""
    return _ns(call.timestamp + monotonic - call.began)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
