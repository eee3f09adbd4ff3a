"""The command that plays a trace: its report, its picture, and what it says of bad input."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxy.command.cli import main

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
    """In all, against the order of coming, and for each model."""
    assert simulate(folder, "--start", "20", "--start", "code=8", "--serve", "3") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert rows[1][:4] == ["maxWait", "10,", "minActive", "0"]
    assert rows[1][4:9] == ["3", "2", "20.0s", "32.5s", "32.5s"]
    assert rows[2][4:6] == ["3", "3"]
    assert rows[4] == ["chat", "2", "20.0s", "20.0s", "20.0s"]
    assert rows[5] == ["code", "1", "32.5s", "32.5s", "32.5s"]


def test_a_picture_with_a_row_for_each_model(folder: Path) -> None:
    """It is well-formed, whatever the models are called."""
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("code:", "'<co&de>':"))
    trace = folder / "trace.csv"
    trace.write_text(trace.read_text().replace("code", "<co&de>"))
    assert simulate(folder, "--picture", str(folder / "out.svg")) == 0
    tree = ElementTree.parse(folder / "out.svg")  # noqa: S314 -- it is ours
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"chat", "<co&de>"} <= set(texts)


def test_a_trace_may_begin_with_a_mark_of_its_encoding_and_without_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then its first line is a request like any other; one that is none is said."""
    (folder / "trace.csv").write_text("1,chat\n2,code\n", encoding="utf-8-sig")
    assert simulate(folder) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4] == "2"
    (folder / "trace.csv").write_text("1;chat\n2,code\n")
    assert simulate(folder) == 1
    assert "trace.csv:1: expected seconds,model" in capsys.readouterr().err


def test_other_settings_than_the_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To see what they would do."""
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
        ("seconds,model\n", "trace.csv holds no request"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_its_line(
    folder: Path, trace: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is played then."""
    (folder / "trace.csv").write_text(trace)
    assert simulate(folder) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--start", "much", "--start much: expected SECONDS or MODEL=SECONDS"),
        ("--wake", "cat=3", "--wake cat=3: no model is called 'cat'"),
        ("--picture", "/nowhere/out.svg", "cannot write /nowhere/out.svg"),
        ("--trace", "/nowhere/trace.csv", "cannot read /nowhere/trace.csv"),
    ],
)
def test_an_argument_that_cannot_be_used_is_said(
    folder: Path, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    assert simulate(folder, option, value) == 1
    assert message in capsys.readouterr().err
