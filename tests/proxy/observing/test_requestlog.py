"""A request's log line is the same, whether it is written through structlog or directly."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog

from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import UNKNOWN
from proxy.http.errors import Problem
from proxy.observing import logformat
from proxy.observing.logbook import LogBook
from proxy.observing.logformat import OF_REQUESTS, Format, configure
from proxy.observing.requestlog import report, report_refusal
from tests.peers.client import ask
from tests.proxy.daemon import daemon, stub

TIME = re.compile(r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"\}')


@attrs.define
class Said:
    """The parts of an answer that the log reports."""

    status: int = 200
    said_all: bool = True
    problem: Problem | None = None

    @property
    def outcome(self) -> int:
        return self.problem.status if self.problem else self.status


@attrs.define
class Log:
    """The file of a log."""

    file: Path
    book: LogBook

    def lines(self) -> list[str]:
        logformat.flush()
        return self.file.read_text().splitlines()


Configured = Callable[[Format, str], Log]


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """Write the log to a file; restore the configuration at the end."""
    kept = structlog.get_config()
    with (tmp_path / "log").open("w") as file:
        log = Log(tmp_path / "log", LogBook())
        monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

        def set_up(form: Format, level: str) -> Log:
            monkeypatch.setattr(sys, "stdout", file)  # pytest sets its own before each test
            configure(form, level, log.book)
            return log

        yield set_up
    structlog.configure(**kept)
    OF_REQUESTS.begin(logging.INFO, None)


def call(**more: Any) -> Call:
    known = {"model": "a", "began": 10.0, **more}
    return Call("the-id", "POST", known.pop("path", "/v1/completions"), [], "", **known)


NO_ROOM = Problem(503, "no room: \x1b[31m\u202e\u00e4 \u2028 \U0001f600")
REPORTED: dict[str, tuple[Call, Said, str, str, dict[str, Any]]] = {
    "served": (
        *(call(), Said()),
        *("info", "<a> POST /v1/completions 200 after 0.500s", {"status": 200}),
    ),
    "with a key": (
        *(call(key="anna"), Said()),
        *("info", "<a> POST /v1/completions 200 after 0.500s", {"status": 200, "key": "anna"}),
    ),
    "without a model": (
        *(call(model=""), Said()),
        *("info", "POST /v1/completions 200 after 0.500s", {"model": "", "status": 200}),
    ),
    "refused": (
        *(call(), Said(0, False, Problem(404, "there is none"))),
        *("warning", "<a> POST /v1/completions 404 after 0.500s: there is none"),
        {"status": 404, "reason": "there is none"},
    ),
    "failed in its middle": (
        *(call(key="k"), Said(200, False, NO_ROOM)),
        *("warning", f"<a> POST /v1/completions 503 after 0.500s: {NO_ROOM.message}"),
        {"status": 503, "key": "k", "reason": NO_ROOM.message},
    ),
    "left": (
        *(call(), Said(200, False)),
        "info",
        "<a> POST /v1/completions ended early after 0.500s: the client disconnected or was cut off",
        {"status": 200},
    ),
    "cancelled": (
        *(call(cancelled=True), Said(0, False)),
        "info",
        "<a> POST /v1/completions ended early after 0.500s: an operator cancelled it",
        {"status": 0},
    ),
    "odd": (
        *(call(model='\x00\x1b[2J"\\\ud800\u00e9', path="/\x07\u65e5\ufffd<>&\x7f"), Said()),
        "info",
        '<\x00\x1b[2J"\\\ud800\u00e9> POST /\x07\u65e5\ufffd<>&\x7f 200 after 0.500s',
        {
            "model": '\x00\x1b[2J"\\\ud800\u00e9',
            "path": "/\x07\u65e5\ufffd<>&\x7f",
            "status": 200,
        },
    ),
    "long": (
        *(call(model="m" * 999, path="/" + "p" * 999), Said()),
        "info",
        f"<{'m' * 200}> POST /{'p' * 199} 200 after 0.500s",
        {"model": "m" * 200, "path": "/" + "p" * 199, "status": 200},
    ),
}
CASES = pytest.mark.parametrize(
    ("asked", "answer", "level", "event", "facts"), REPORTED.values(), ids=REPORTED
)


def through_structlog(level: str, event: str, facts: dict[str, Any]) -> None:
    """Write the line in the way that all other lines are written."""
    asked = {"method": "POST", "path": "/v1/completions", "client": "", "stream": False}
    whole = {"model": "a", "duration_s": 0.5, "request_id": "the-id", **asked, **facts}
    first, last = ("model", "method", "path", "client"), ("stream", "key", "reason")
    order = (*first, "status", "duration_s", "request_id", *last)
    in_order = {name: whole[name] for name in order if name in whole}
    getattr(structlog.get_logger("proxy"), level)(event, **in_order)


@CASES
def test_a_line_of_json_is_as_structlog_would_write_it(
    configured: Configured, asked: Call, answer: Said, level: str, event: str, facts: dict[str, Any]
) -> None:
    """Only the time may differ; the line is ASCII, so that it harms no terminal."""
    log = configured("json", "info")
    report(asked, answer, UNKNOWN, 10.5)  # type: ignore[arg-type] # all that is read of it
    through_structlog(level, event, facts)
    ours, theirs = log.lines()
    assert TIME.search(ours)
    assert TIME.sub("", ours) == TIME.sub("", theirs)
    assert ours.isascii()
    assert ours.isprintable()
    found = json.loads(ours)
    assert (found["event"], found["level"]) == (event, level)
    assert list(found)[-3:] == ["event", "level", "timestamp"]
    assert log.book.proxy.text().decode().splitlines() == [ours, theirs]


@CASES
def test_a_line_of_text_is_as_structlog_writes_it(
    configured: Configured, asked: Call, answer: Said, level: str, event: str, facts: dict[str, Any]
) -> None:
    """The text is one line, and nothing in it moves a cursor."""
    log = configured("text", "info")
    report(asked, answer, UNKNOWN, 10.5)  # type: ignore[arg-type] # all that is read of it
    through_structlog(level, event, facts)
    ours, theirs = log.lines()
    assert ours[8:] == theirs[8:]
    assert re.match(r"\d\d:\d\d:\d\d \[(info   |warning) ", ours)
    assert not logformat.UNPRINTABLE.search(ours)
    assert "the-id" not in ours


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    ("level", "count"), [("debug", 9), ("info", 9), ("warn", 2), ("error", 0), ("nonsense", 9)]
)
def test_the_level_says_which_requests_are_written(
    configured: Configured, form: Format, level: str, count: int
) -> None:
    """With ``warn``, only failed requests are written; /logs keeps the written lines."""
    log = configured(form, level)
    for asked, answer, *_ in REPORTED.values():
        report(asked, answer, UNKNOWN, 10.5)  # type: ignore[arg-type] # all that is read of it
    assert len(log.lines()) == count
    assert len(log.book.proxy.text().splitlines()) == count


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_is_not_shown_is_kept_all_the_same(configured: Configured, form: Format) -> None:
    """logToStdout selects what is shown, but /logs keeps every line."""
    log = configured(form, "info")
    log.book.shown = frozenset()
    report(call(), Said(), UNKNOWN, 10.5)  # type: ignore[arg-type] # all that is read of it
    assert log.lines() == []
    assert b"POST /v1/completions 200 after 0.500s" in log.book.proxy.text()


def test_a_refusal_at_the_door_is_a_line_too(configured: Configured) -> None:
    """Such a request is refused before its model is known."""
    log = configured("json", "warn")
    problem = Problem(401, "an API key is required")
    report_refusal("GET", "/logs", "192.0.2.7", problem, "the-id", "batch")
    [line] = log.lines()
    assert TIME.sub("", line) == (
        '{"method":"GET","path":"/logs","client":"192.0.2.7","status":401,'
        '"reason":"an API key is required","request_id":"the-id","key":"batch",'
        '"event":"GET /logs 401: an API key is required","level":"warning",'
    )


async def test_the_lines_of_requests_are_read_at_logs(configured: Configured) -> None:
    """The lines at /logs have the daemon's log format."""
    log = configured("json", "info")
    async with daemon({"a": stub()}) as running:
        monitored = running.book
        configure("json", "info", monitored)
        body = b'{"model": "a"}'
        await ask(running.port, "POST", "/v1/completions", body, {"x-request-id": "the-id"})
        page = (await ask(running.port, "GET", "/logs")).body.decode()
    [line] = [one for one in page.splitlines() if "/v1/completions" in one]
    found = json.loads(line)
    # The request waited for the model's start.
    assert found.pop("duration_s") >= found.pop("first_byte_s") >= found.pop("queue_s") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found.pop("timestamp"))
    assert found.pop("event").startswith("<a> POST /v1/completions 200 after ")
    asked = {"method": "POST", "path": "/v1/completions", "client": "127.0.0.1", "stream": False}
    answered = {"model": "a", "status": 200, "request_id": "the-id", "level": "info"}
    tokens = {name: found.pop(name) for name in ("tokens_in", "tokens_out") if name in found}
    assert found == {**asked, **answered}
    assert all(count >= 0 for count in tokens.values())
    assert line in log.lines()
