"""A request's trace as a collector receives it: OTLP over HTTP from a daemon's own process."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import attrs
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, wait_for, write

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OF_CLIENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{OF_CLIENT}-01"
UNSAMPLED = f"00-{TRACE}-{OF_CLIENT}-00"
CHAT = "POST /v1/chat/completions"


@attrs.define(eq=False)
class Collector:
    """Keeps every span that a daemon sends, and the resources that sent them."""

    port: int
    spans: list[Span] = attrs.field(factory=list)
    resources: list[dict[str, str]] = attrs.field(factory=list)

    @property
    def env(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, body: bytes) -> None:
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            facts = sent.resource.attributes
            self.resources.append({one.key: one.value.string_value for one in facts})
            for scope in sent.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        wait_for(lambda: bool(self.named(name)))
        (span,) = self.named(name)
        return span

    def inside(self, span: Span) -> list[str]:
        """Return the names of a span's children, in the order of their start."""
        found = [one for one in self.spans if one.parent_span_id == span.span_id]
        return [one.name for one in sorted(found, key=lambda one: one.start_time_unix_nano)]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()


def said(span: Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def ask(daemon: Process, model: str, limit: float = 30, **headers: str) -> Any:
    """Send a chat with extra headers; return what the stub says about it."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    url = f"http://127.0.0.1:{daemon.port}/v1/chat/completions"
    kind = {"Content-Type": "application/json", **headers}
    with urlopen(Request(url, body.encode(), kind), timeout=limit) as reply:
        return json.loads(reply.read())


def test_a_swap_is_told_in_the_trace_of_the_request_that_needed_it(tmp_path: Path) -> None:
    """The sleep, the start and the server's answer are spans below the client's span."""
    models = {"a": stub(sleeps=True), "b": stub("--ready-after", "0.5")}
    with (
        collecting() as collector,
        started("--config", write(tmp_path, models=models), env=collector.env) as daemon,
    ):
        ask(daemon, "a")
        collector.one(CHAT)
        collector.spans.clear()
        echoed = ask(daemon, "b", traceparent=SAMPLED)
        request = collector.one(CHAT)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, OF_CLIENT)
    assert collector.inside(request) == ["wait", "upstream"]
    wait, upstream = collector.one("wait"), collector.one("upstream")
    assert collector.inside(wait) == ["sleep a", "start b"]
    assert 0.4 < seconds(collector.one("start b")) <= seconds(wait) < seconds(request)
    parent = f"00-{TRACE}-{upstream.span_id.hex()}-01"
    assert [one for one in echoed["headers"] if one.startswith("traceparent")] == [
        f"traceparent: {parent}"
    ]
    facts = said(request)
    assert facts["gen_ai.request.model"] == "b"
    assert facts["http.response.status_code"] == 200
    assert [event.name for event in upstream.events] == ["first byte"]
    assert said(collector.one("sleep a"))["llamadoze.cause"] == "room"
    assert {one["service.name"] for one in collector.resources} == {"llamadoze"}


def test_a_wake_is_told_and_a_request_without_a_wait_has_none(tmp_path: Path) -> None:
    """Spans for waits of no length would fill every trace."""
    models = {"a": stub(sleeps=True), "b": stub(sleeps=True)}
    with (
        collecting() as collector,
        started("--config", write(tmp_path, models=models), env=collector.env) as daemon,
    ):
        for model in "aba":
            ask(daemon, model)
        ask(daemon, "a")
        wait_for(lambda: len(collector.named(CHAT)) == 4)
    children = [collector.inside(one) for one in collector.named(CHAT)]
    assert children == [["wait", "upstream"]] * 3 + [["upstream"]]
    steps = [collector.inside(one) for one in collector.named("wait")]
    assert steps == [["start a"], ["sleep a", "start b"], ["sleep b", "wake a"]]


def test_a_request_to_a_peer_has_no_wait(tmp_path: Path) -> None:
    """Its server is asked at once; what it waits for there is the peer's to tell."""
    for name in ("far", "near"):
        (tmp_path / name).mkdir()
    with (
        started("--config", write(tmp_path / "far", models={"a": stub()})) as far,
        collecting() as collector,
    ):
        peers = {"far": {"proxy": f"http://127.0.0.1:{far.port}", "models": ["a"]}}
        file = write(tmp_path / "near", models={}, peers=peers)
        with started("--config", file, env=collector.env) as daemon:
            ask(daemon, "a")
            request = collector.one(CHAT)
    assert collector.inside(request) == ["upstream"]


def test_a_trace_state_in_several_lines_goes_on_whole(tmp_path: Path) -> None:
    """W3C Trace Context, 3.3.1: they are one list."""
    with (
        collecting() as collector,
        started("--config", write(tmp_path, models={"a": stub()}), env=collector.env) as daemon,
        closing(HTTPConnection("127.0.0.1", daemon.port, timeout=30)) as client,
    ):
        body = b'{"model": "a"}'
        client.putrequest("POST", "/v1/chat/completions")
        for name, value in (
            *(("traceparent", SAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2")),
            *(("content-type", "application/json"), ("content-length", str(len(body)))),
        ):
            client.putheader(name, value)
        client.endheaders(body)
        echoed = json.loads(client.getresponse().read())["headers"]
    assert [one for one in echoed if one.startswith("tracestate")] == ["tracestate: a=1,b=2"]


def test_a_failure_and_a_client_that_leaves_are_told(tmp_path: Path) -> None:
    """None of the three requests has reached a model server."""
    models = {"bad": stub("--exit", "3"), "slow": stub("--ready-after", "20")}
    with (
        collecting() as collector,
        started("--config", write(tmp_path, models=models), env=collector.env) as daemon,
    ):
        assert daemon.chat("nothing")[0] == 404
        assert daemon.chat("bad")[0] == 502
        with suppress(TimeoutError):
            ask(daemon, "slow", limit=0.5)
        wait_for(lambda: len(collector.named(CHAT)) == 3)
    unknown, failed, left = collector.named(CHAT)
    assert (said(unknown)["error.type"], collector.inside(unknown)) == ("404", [])
    assert (said(failed)["error.type"], collector.inside(failed)) == ("502", ["wait"])
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert "model 'bad'" in failed.status.message
    (start,) = collector.named("start bad")
    assert start.status.code == Status.STATUS_CODE_ERROR
    assert "status 3" in start.status.message
    assert said(left)["llamadoze.ended_early"]
    assert collector.inside(left) == ["wait"]
    assert not collector.named("upstream")


def test_a_client_that_samples_its_trace_out_is_followed(tmp_path: Path) -> None:
    """llamadoze passes the decision on to the model server."""
    with (
        collecting() as collector,
        started("--config", write(tmp_path, models={"a": stub()}), env=collector.env) as daemon,
    ):
        echoed = ask(daemon, "a", traceparent=UNSAMPLED)
        ask(daemon, "a")
        collector.one(CHAT)
    (parent,) = (one for one in echoed["headers"] if one.startswith("traceparent"))
    assert parent.startswith(f"traceparent: 00-{TRACE}-")
    assert parent.endswith("-00")
    assert len(collector.named(CHAT)) == 1


def test_without_a_collector_headers_go_on_as_they_are(tmp_path: Path) -> None:
    """llamadoze does not interfere with a client's own traces."""
    with started("--config", write(tmp_path, models={"a": stub()})) as daemon:
        echoed = ask(daemon, "a", traceparent=SAMPLED)
    assert f"traceparent: {SAMPLED}" in echoed["headers"]


@pytest.mark.parametrize("again", [False, True])
def test_a_collector_that_never_answers_holds_up_no_end(tmp_path: Path, again: bool) -> None:
    """The models stop meanwhile, and a second signal ends the wait for the collector."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with started("--config", write(tmp_path, models={"a": stub()}), env=env) as daemon:
            assert daemon.chat("a")[0] == 200
            began = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            wait_for(lambda: daemon.said("<a> Process stopped"))
            assert time.monotonic() - began < 2
            if again:
                daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(30) == 0
            took = time.monotonic() - began
    assert took < 2.5 if again else took < 6


def test_a_collector_that_is_away_costs_no_request_and_one_line(tmp_path: Path) -> None:
    """The daemon's end is also hardly delayed."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port(1)}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with started("--config", write(tmp_path, models={"a": stub()}), env=env) as daemon:
        for _ in range(5):
            assert daemon.chat("a")[0] == 200
            time.sleep(0.5)
        status, took = daemon.end()
    assert (status, took < 5) == (0, True)
    told = [one for one in daemon.log() if one.get("logger", "").startswith("opentelemetry")]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "Requests are not traced: llamadoze sends"),
        ({"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_what_the_environment_forbids_is_not_done(
    tmp_path: Path, env: dict[str, str], words: str
) -> None:
    """llamadoze logs it if it may be a mistake."""
    with (
        collecting() as collector,
        started(
            "--config", write(tmp_path, models={"a": stub()}), env={**collector.env, **env}
        ) as daemon,
    ):
        assert daemon.chat("a")[0] == 200
        assert daemon.end()[0] == 0
    assert not collector.spans
    assert daemon.said("Requests are not traced") == bool(words)
    assert daemon.said(words)


def test_settings_that_the_sdk_refuses_end_no_daemon(tmp_path: Path) -> None:
    """Models are served without traces."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "0"}
    with started("--config", write(tmp_path, models={"a": stub()}), env=env) as daemon:
        assert daemon.chat("a")[0] == 200
    assert daemon.said("Requests are not traced: OpenTelemetry cannot start: schedule_delay")
