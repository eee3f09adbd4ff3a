"""The command that plays a trace: its report, its picture, and its messages about bad input."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from configschema import load
from proxy.command.cli import main
from proxy.observing.logformat import RequestLines
from proxy.simulation.traces import read_log
from supervisor.playing.outcome import Arrival
from supervisor.states.footprint import Footprint
from supervisor.states.learned import Learned
from supervisor.states.snapshot import Costs
from supervisor.succession.knowledge import Knowledge

CONFIG = """
models:
  chat: {cmd: x, proxy: 'http://h:9', cmdSleep: x, cmdWake: x, aliases: [gpt]}
  code: {cmd: x, proxy: 'http://h:9'}
"""
TRACE = "seconds,model,serve\n0,chat,4\n1,code\n# a comment\n\n2,gpt,4\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "trace.csv").write_text(TRACE)
    return tmp_path


def simulate(folder: Path, *more: str) -> int:
    files = ["--config", str(folder / "config.yaml"), "--trace", str(folder / "trace.csv")]
    return main(["simulate", *files, *more])


def test_a_report_of_waits_and_swaps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has totals, a comparison with first come, first served, and a row per model."""
    assert simulate(folder, "--start", "20", "--start", "code=8", "--serve", "3") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert rows[0][:4] == ["maxWait", "10,", "minActive", "0;"]
    assert rows[2][:10] == ["*", "one", "at", "a", "time", "3", "2", "20.0s", "32.0s", "32.0s"]
    assert rows[3][:6] == ["first", "come,", "first", "served", "3", "3"]
    assert rows[5] == ["chat", "2", "20.0s", "20.0s", "20.0s"]
    assert rows[6] == ["code", "1", "32.0s", "32.0s", "32.0s"]


def test_a_report_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are the same, in seconds."""
    times = ("--start", "20", "--start", "code=8", "--serve", "3")
    assert simulate(folder, *times, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rule"] == "one at a time"
    assert told["rules"]["one at a time"]["swaps"] == 2
    assert told["rules"]["first come, first served"]["requests"] == 3
    assert told["models"]["code"] == {"requests": 1, "p50": 32.0, "p99": 32.0, "max": 32.0}


def test_a_picture_with_a_row_for_each_model(folder: Path) -> None:
    """The picture is well-formed XML, whatever the models are called."""
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("code:", "'<co&de>':"))
    trace = folder / "trace.csv"
    trace.write_text(trace.read_text().replace("code", "<co&de>"))
    assert simulate(folder, "--picture", str(folder / "out.svg")) == 0
    tree = ElementTree.parse(folder / "out.svg")  # noqa: S314 -- our own file
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"chat", "<co&de>"} <= set(texts)


def test_a_trace_may_begin_with_a_mark_of_its_encoding_and_without_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without column names, the first line is a request; an invalid first line is an error."""
    (folder / "trace.csv").write_text("1,chat\n2,code\n", encoding="utf-8-sig")
    assert simulate(folder) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[5] == "2"
    (folder / "trace.csv").write_text("1;chat\n2,code\n")
    assert simulate(folder) == 1
    assert "trace.csv:1: expected seconds,model" in capsys.readouterr().err


def test_other_settings_than_the_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The options show what other settings would do."""
    assert simulate(folder, "--max-wait", "0", "--min-active", "7") == 0
    assert "maxWait 0, minActive 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("1,chat\n2,cat\n", "trace.csv:2: no model is called 'cat'"),
        ("1,chat\nx,chat\n", "trace.csv:2: could not convert string to float: 'x'"),
        ("1,chat\n2,chat,-3\n", "trace.csv:2: expected seconds, found -3"),
        ("1,chat\n2\n", "trace.csv:2: expected seconds,model or seconds,model,serve"),
        ("1,chat\n2,chat,3,4\n", "trace.csv:2: expected seconds,model or seconds,model,serve"),
        ("seconds,model\n", "trace.csv contains no request"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_its_line(
    folder: Path, trace: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is played in this case."""
    (folder / "trace.csv").write_text(trace)
    assert simulate(folder) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--wake", "cat=3", "--wake cat=3: no model is called 'cat'"),
        ("--picture", "/nowhere/out.svg", "cannot write /nowhere/out.svg"),
        ("--trace", "/nowhere/trace.csv", "cannot read /nowhere/trace.csv"),
    ],
)
def test_an_argument_that_cannot_be_used_is_said(
    folder: Path, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is one line."""
    assert simulate(folder, option, value) == 1
    assert message in capsys.readouterr().err


BY_MEMORY = """
routing: {router: {use: memory, settings: {
  groups: {all: {swap: false, members: [chat, code]}},
  matrix: {sets: {both: chat & code}},
  memory: {hostMemory: 30}}}}
"""


def play(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, list[str]]:
    """Return the rows of the totals by the name of the rule, and the lines above the rows."""
    assert main(["simulate", "--config", str(folder / "config.yaml"), *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(place for place, line in enumerate(lines) if "requests   swaps" in line)
    rows = [line.split("  ") for line in lines[start + 1 : lines.index("", start)]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {"head": lines[:start]} | {name: row for name, *row in cells}


@pytest.fixture
def by_memory(folder: Path) -> Path:
    config = folder / "config.yaml"
    config.write_text(config.read_text() + BY_MEMORY)
    return folder


def test_all_rules_of_a_file_are_compared(
    by_memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule in effect is first and marked; if both models fit, the only swaps are the starts."""
    trace = ("--trace", str(by_memory / "trace.csv"))
    found = play(by_memory, capsys, *trace, "--memory", "10", "--gpu", "24")
    assert [*found][1:] == [
        *("* memory", "matrix", "groups", "one at a time", "first come, first served"),
    ]
    assert found["* memory"][:2] == ["3", "2"]
    assert found["one at a time"][:2] == ["3", "2"]
    assert "in effect: memory" in found["head"][-1]


@pytest.mark.parametrize(
    ("options", "swaps"),
    [
        (["--memory", "10"], "2"),
        (["--memory", "20"], "3"),
        (["--memory", "20", "--memory", "code=10"], "2"),
        (["--memory", "20", "--gpu", "24"], "3"),
        (["--memory", "20", "--gpu", "24", "--gpu", "24"], "2"),
        (["--memory", "10", "--host", "15"], "3"),
        (["--memory", "10/6", "--gpu", "15"], "3"),
        ([], "3"),
    ],
)
def test_sizes_say_who_runs_beside_whom(
    by_memory: Path, options: list[str], swaps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes are for all models or one, on GPUs or the host; without a size, a model runs alone."""
    (by_memory / "trace.csv").write_text("0,chat,4\n10,code,4\n300,chat,4\n")
    found = play(by_memory, capsys, "--trace", str(by_memory / "trace.csv"), *options)
    assert found["* memory"][:2] == ["3", swaps]
    assert ("is unknown" in "".join(found["head"])) == (not options)


def test_sizes_and_times_may_be_what_a_daemon_has_learned(
    by_memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They come from the state folder; the file and the options take precedence."""
    knowledge = Knowledge(by_memory / "learned.json")
    models = load(by_memory / "config.yaml").config.models
    for model in models.values():
        size = Footprint(host=10 << 30, lives=1)
        knowledge.keep(model, Learned(size, Costs(start=7, sleep=1, wake=1)))
    written = {"models": {k: v.as_data() for k, v in knowledge._known.items()}}
    (by_memory / "learned.json").write_text(json.dumps(written))
    (by_memory / "trace.csv").write_text("0,chat,4\n50,code,4\n300,chat,4\n")
    state = ("--trace", str(by_memory / "trace.csv"), "--state-dir", str(by_memory))
    found = play(by_memory, capsys, *state)
    assert found["* memory"][:5] == ["3", "2", "7.0s", "7.0s", "7.0s"]
    found = play(by_memory, capsys, *state, "--memory", "20", "--start", "chat=9")
    assert found["* memory"][:2] == ["3", "3"]
    assert found["* memory"][4] == "9.0s"
    assert main(["simulate", "--config", str(by_memory / "config.yaml"), *state[:3], "/no"]) == 1
    assert "--state-dir /no: there is no learned.json in it" in capsys.readouterr().err


def line(at: str, **facts: object) -> str:
    return json.dumps({"event": "x", "timestamp": f"2026-01-01T{at}Z", **facts}) + "\n"


def test_a_trace_may_be_the_daemons_own_log(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Serving begins when the model is ready, or as the line says; other lines are counted."""
    served = {"status": 200, "request_id": "x"}
    (folder / "log").write_text(
        line("00:00:00", model="chat", state="starting")
        + line("00:00:20", model="chat", state="ready", duration_s=20)
        + line("00:00:24.5", model="chat", duration_s=24.5, **served)
        + line("00:01:00", model="chat", duration_s=5, waited_s=2, **served)
        + line("00:01:01", model="old", duration_s=1, **served)
        + line("00:01:02", model="chat", duration_s=1, reason="full", status=503, request_id="y")
        + '{"event": "half\n'
    )
    arrivals, said = read_log(folder / "log", load(folder / "config.yaml").config)
    assert arrivals == [Arrival(0, "chat", 4.5), Arrival(55, "chat", 3)]
    assert said.endswith(
        "2 requests; left out: 2 other lines, 1 broken lines, 1 requests that were refused or "
        "failed, 1 requests for models not in the configuration: 'old'"
    )
    found = play(folder, capsys, "--log", str(folder / "log"))
    assert found["* one at a time"][:2] == ["2", "1"]
    assert "2 requests; left out" in found["head"][0]


def test_what_the_daemon_writes_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log line of a forwarded request can be part of a trace."""
    lines = RequestLines()
    book = BytesIO()
    put: Any = SimpleNamespace(put=book.write)
    lines.begin(0, put)
    facts = {"model": "chat", "status": 200, "duration_s": 1.5, "request_id": "x"}
    lines.write("info", "<chat> POST /v1/chat/completions 200 after 1.5s", facts)
    (folder / "log").write_bytes(book.getvalue())
    arrivals, _ = read_log(folder / "log", load(folder / "config.yaml").config)
    assert [(one.at, one.model) for one in arrivals] == [(0, "chat")]
    assert arrivals[0].serve == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message", "status"),
    [
        (["--memory", "much"], "--memory much: expected GIB, [MODEL=]GIB or [MODEL=]GIB/REST", 2),
        (["--memory", "cat=3"], "--memory cat=3: no model is called 'cat'", 1),
        (["--gpu", "x"], "--gpu x: expected GIB", 2),
        (["--host", "-1"], "--host -1: expected GIB", 2),
        (["--start", "much"], "--start much: expected SECONDS or MODEL=SECONDS", 2),
        (["--queue-wait", "x"], "--queue-wait x: expected [ALLOCATION=]SECONDS", 2),
    ],
)
def test_a_value_that_cannot_be_read_is_said(
    by_memory: Path,
    options: list[str],
    message: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error is one line and names the option. Only what depends on the file has status 1."""
    assert simulate(by_memory, *[f"{options[0]}={options[1]}"]) == status
    assert message in capsys.readouterr().err


def test_without_any_memory_to_play_with_it_is_asked_for(
    by_memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulation does not look at this machine."""
    config = by_memory / "config.yaml"
    config.write_text(config.read_text().replace("memory: {hostMemory: 30}", "memory: {}"))
    assert simulate(by_memory) == 1
    assert "the amount of memory is unknown: give --gpu GIB" in capsys.readouterr().err


def test_a_log_without_requests_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log in text format has no lines that can be read."""
    (folder / "log").write_text("12:00:00 [info] <chat> POST /v1/chat/completions 200\n")
    assert main(["simulate", "--config", str(folder / "config.yaml"), "--log", str(folder / "log")])
    assert "contains no request" in capsys.readouterr().err
