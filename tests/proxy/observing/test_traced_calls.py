"""Tracing beside the rest of the daemon: what fails in one does not fail in the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.daemon import application
from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import UNKNOWN
from proxy.history.spans import Timeline
from proxy.http.origin import Origin
from proxy.lifecycle import telemetry
from proxy.lifecycle.telemetry import collector_in
from proxy.observing.tracing import Tracing

HEADERS = [(b"host", b"x"), (b"traceparent", b"odd")]
ANSWER = cast("Answer", SimpleNamespace(tokens=lambda: UNKNOWN))
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def broken(*_: Any, **__: Any) -> Any:
    raise ValueError("broken")


def test_a_fault_of_the_tracer_fails_no_request(log_lines: list[dict[str, object]]) -> None:
    """It goes on with its own headers, and the log has the fault."""
    tracing = Tracing(
        Timeline(), cast("Any", SimpleNamespace(start_span=broken)), cast("Any", None)
    )
    call = Call("r", "GET", "/", HEADERS, "")
    assert tracing.upstream(call, Origin("localhost", 1), HEADERS) == HEADERS
    tracing.finished(call, ANSWER, UNKNOWN, 0)
    said = [line["event"] for line in log_lines]
    assert said == ["Internal error; a request is missing in the traces"] * 2


def test_a_fault_of_the_history_leaves_no_span_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is kept of requests in flight would grow."""
    monkeypatch.setattr(application, "report", lambda *_: None)
    ended: list[Call] = []
    tracing = SimpleNamespace(finished=lambda call, *_: ended.append(call))
    metrics, history = SimpleNamespace(count=lambda *_: None), SimpleNamespace(finished=broken)
    call = Call("r", "GET", "/", HEADERS, "")
    given: Any = (metrics, history, tracing, call, ANSWER)
    application._account(*given)
    assert ended == [call]


@pytest.mark.parametrize(
    ("environ", "collector"),
    [
        ({ENDPOINT: "http://c:4318"}, "http://c:4318"),
        ({ENDPOINT: "https://me:secret@c/x?key=secret"}, "https://c/x"),
        ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": ""}, "http://c"),
        ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({ENDPOINT: ""}, ""),
    ],
)
def test_where_spans_go_is_told_without_secrets(environ: dict[str, str], collector: str) -> None:
    """An empty variable is one that is not set, as OpenTelemetry has it."""
    assert collector_in(environ) == collector


@pytest.mark.parametrize(("needed", "found"), [(telemetry.NEEDED, "http://c:1"), ("no.such", "")])
def test_without_the_extra_requests_are_served_without_traces(
    monkeypatch: pytest.MonkeyPatch, needed: str, found: str
) -> None:
    """A collector that the environment names is no reason to end the daemon."""
    monkeypatch.setattr(telemetry, "NEEDED", needed)
    assert telemetry.collector_in({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}) == found
