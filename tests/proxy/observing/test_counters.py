"""The metrics about requests."""

from __future__ import annotations

import attrs
import pytest
import trio

from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import UNKNOWN, Tokens
from proxy.http.errors import Problem
from proxy.observing.counters import BUCKETS, NOBODY, Metrics
from supervisor.states.causes import Asker, Ruling, Why
from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub


@attrs.define
class Said:
    """The parts of an answer that are counted."""

    outcome: int = 200
    found: Tokens = UNKNOWN
    problem: Problem | None = None

    def tokens(self) -> Tokens:
        return self.found


def count(metrics: Metrics, model: str, answer: Said, known: bool = True, **more: object) -> None:
    call = Call("id", "POST", "/", [], "", model=model, known=known, began=100)
    for name, value in more.items():
        setattr(call, name, value)
    metrics.count(call, answer, answer.tokens(), 101.5)  # type: ignore[arg-type] # all that is read


def counted() -> Metrics:
    metrics = Metrics()
    count(metrics, "a", Said(200, Tokens(3, 4, None)), first_byte=100.02, waited=0.0)
    count(metrics, "a", Said(200, Tokens(1, None, 2)), first_byte=101.0, waited=0.5)
    count(metrics, "a", Said(502), waited=20.0)
    count(metrics, "b", Said(503))
    count(metrics, "left", Said(0))
    count(metrics, "cancelled", Said(0), cancelled=True)
    for name in ("x", "y"):
        count(metrics, name, Said(404), known=False)
    return metrics


def test_requests_are_counted_by_model_and_status() -> None:
    """No status counts as 0, an operator's cancellation as 499; unknown names share one label."""
    assert counted().requests() == {
        ("a", "200"): 2,
        ("a", "502"): 1,
        ("b", "503"): 1,
        ("left", "0"): 1,
        ("cancelled", "499"): 1,
        (NOBODY, "404"): 2,
    }


def test_errors_of_our_own_are_counted_by_code() -> None:
    """An error without a code has that of its status. A model server's own error is not ours."""
    metrics = Metrics()
    for _ in range(2):
        count(metrics, "a", Said(503, problem=Problem(503, "full", "queue_full")))
    count(metrics, "a", Said(502, problem=Problem(502, "broken off")))
    count(metrics, "a", Said(500, problem=Problem(500, "theirs", given={"code": "theirs"})))
    count(metrics, "x", Said(404, problem=Problem(404, "no such model")), known=False)
    assert metrics.errors() == {
        ("a", "queue_full"): 2,
        ("a", "bad_gateway"): 1,
        (NOBODY, "not_found"): 1,
    }


def test_each_model_that_was_asked_has_all_kinds_of_tokens() -> None:
    """Unknown counts are 0, because a missing series cannot be added to."""
    found = counted().tokens()
    kinds = ("prompt", "generated", "cached")
    names = ("a", "b", "left", "cancelled", NOBODY)
    assert set(found) == {(name, kind) for name in names for kind in kinds}
    assert [found["a", kind] for kind in kinds] == [4, 4, 2]
    assert sum(found.values()) == 10


def test_a_decision_counts_once_however_often_it_grows() -> None:
    """A decision is reported again for each model that must make room."""
    metrics = Metrics()
    asker = Asker(why=Why.REQUEST)
    for number, model, rule in [(1, "a", "groups"), (1, "a", "groups"), (2, "b", "groups")]:
        one = Ruling(number=number, model=model, asker=asker, waited=0, waiting=1, rule=rule)
        metrics.ruled(one)
    assert metrics.decisions == {("a", "groups"): 1, ("b", "groups"): 1}


async def test_who_runs_and_how_long_the_oldest_has_waited() -> None:
    """The version is a label; a model without waiting requests has a wait of 0."""
    models = {"a": stub("--ready-after", "60"), "b": stub()}
    async with daemon(models) as running, trio.open_nursery() as nursery:
        nursery.start_soon(chat, running.port, "a")
        await trio.sleep(0.3)
        text = (await ask(running.port, "GET", "/metrics")).body.decode()
        nursery.cancel_scope.cancel()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert 0.1 < float(found['llamadoze_oldest_wait_seconds{model="a"}']) < 30
    assert float(found['llamadoze_oldest_wait_seconds{model="b"}']) == 0
    assert found['llamadoze_decisions_total{model="a",rule="one at a time"}'] == "1.0"
    assert any(name.startswith("llamadoze_build_info{") for name in found)


def test_times_are_only_of_what_has_happened() -> None:
    """A model without a first byte or without a wait has no series for these times."""
    metrics = counted()
    durations = metrics.times(lambda one: one.durations)
    assert set(durations) == {("a",), ("b",), ("left",), ("cancelled",), (NOBODY,)}
    assert durations["a",].sum == pytest.approx(4.5)
    assert durations["a",].buckets()[-1] == ("+Inf", 3)
    first = metrics.times(lambda one: one.first_bytes)
    assert set(first) == {("a",)}
    assert dict(first["a",].buckets())["0.025"] == 1
    waits = metrics.times(lambda one: one.waits)
    assert set(waits) == {("a",)}
    assert [n for _, n in waits["a",].buckets()] == [
        1 + (bound >= 0.5) + (bound >= 20) for bound in (*BUCKETS, 1000)
    ]


def test_nothing_is_counted_of_what_was_not_asked() -> None:
    """A new daemon has no series about models."""
    metrics = Metrics()
    assert not metrics.requests()
    assert not metrics.tokens()
    assert not metrics.times(lambda one: one.waits)


async def test_the_page_has_a_series_for_all_that_was_asked() -> None:
    """Models that count no tokens and unknown names have series too."""
    async with daemon({"a": stub(), "b": stub("--exit", "3"), "never": stub()}) as running:
        body = b'{"model": "a", "raw": true}'
        await ask(running.port, "POST", "/v1/completions", body)
        await chat(running.port, "b")
        await chat(running.port, "nobody")
        page = (await ask(running.port, "GET", "/metrics")).body.decode()
    found = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in page.splitlines()}
    for name in ("a", "b", NOBODY):
        for kind in ("prompt", "generated", "cached"):
            assert found[f'llamadoze_tokens_total{{kind="{kind}",model="{name}"}}'] == "0.0"
        assert found[f'llamadoze_request_duration_seconds_count{{model="{name}"}}'] == "1.0"
    has_first = {name: f'"{name}"' in part for name, part in parts(page, "time_to_first_byte")}
    assert has_first == {"a": True, "b": False, NOBODY: False, "never": False}
    waited = {name: f'"{name}"' in part for name, part in parts(page, "queue_wait")}
    assert waited == {"a": True, "b": False, NOBODY: False, "never": False}
    assert found['llamadoze_requests_total{model="b",status="502"}'] == "1.0"
    assert not [one for one in found if "request" in one and "_total" in one and '"never"' in one]


def parts(page: str, name: str) -> list[tuple[str, str]]:
    """Return the lines of one metric family, once for each model that may appear in them."""
    lines = [one for one in page.splitlines() if one.startswith(f"llamadoze_{name}_seconds")]
    return [(model, "\n".join(lines)) for model in ("a", "b", NOBODY, "never")]
