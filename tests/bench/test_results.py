"""Medians, ratios, goals, and the page with the measurements."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from math import isnan, nan
from pathlib import Path

import pytest

from tests.bench import page
from tests.bench.figures import Figure, number
from tests.bench.forwarding import Forwarding
from tests.bench.machine import is_optimised
from tests.bench.report import Report, without_nan
from tests.bench.traffic_results import Results
from tests.bench.traffic_tables import MANY, goals, loads, tables

KEYS = (
    *("latency_p50", "latency_p99", "per_second", "cpu", "memory", "head_p50", "head_p99"),
    *("event_p50", "event_p99", "delay_p50", "delay_p99", "late_p99", "noticed_p50", "noticed_max"),
)
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text()


def results(*targets: str) -> Results:
    """Return three rounds; a target's figures are its place times the round's noise."""
    found = Results(list(targets))
    for load in loads(1, quick=True):
        for place, target in enumerate(targets, 1):
            for noise in (1.0, 4.0, 2.0):
                figures = dict.fromkeys(KEYS, place * noise / 1000)
                found.add(load, target, {**figures, "errors": 0})
    return found


def report() -> Report:
    forwarding = Forwarding(results("direct", "haproxy", "llamadoze", "other"), 0.01)
    parts = {
        "instructions": [Figure("a request", 400.0, "k", "<= 480", [390.0, 400.0])],
        "starts": [Figure("listening", nan, "ms", "<= 250"), Figure("... the least", 200.0, "ms")],
        "swaps": [Figure("a swap", 50.0, "ms", "< 40")],
    }
    where = {"cores": 2, "cpu": "a CPU", "kernel": "6.1"}
    python = {"implementation": "CPython", "version": "3.11.2", "optimised": True}
    seconds = {"forwarding": 100.0, "starts": 20.0}
    return Report(where, python, {"trio": "1"}, forwarding, parts, seconds)


def test_a_ratio_is_taken_within_a_round() -> None:
    """Because of that, a round in which all targets were slow does not count for more."""
    found = Results(["haproxy", "llamadoze"])
    for own, other in ((6.0, 1.0), (50.0, 10.0), (4.0, 1.0)):
        found.add(MANY, "llamadoze", {"cpu": own})
        found.add(MANY, "haproxy", {"cpu": other})
    assert found.ratio(MANY, "cpu") == 5
    assert found.median(MANY, "llamadoze", "cpu") == 6
    assert found.ratio(MANY, "cpu", "haproxy") == 1


def test_without_haproxy_nothing_is_compared_with_it() -> None:
    """Without haproxy, its goals are neither reached nor missed."""
    found = list(goals(results("direct", "llamadoze")))
    assert [figure.reached for figure in found[:3]] == [None] * 3
    assert found[3].reached is False  # 1 ms is more than 0.25
    assert isnan(found[0].value)


@pytest.mark.parametrize(
    ("value", "goal", "reached"),
    [(5, "<= 5", True), (5, "< 5", False), (5.1, "<= 5", False), (1, "", None), (nan, "< 1", None)],
)
def test_a_goal_is_reached_or_missed(value: float, goal: str, reached: bool | None) -> None:
    """Without a goal or a value, the answer is neither."""
    assert Figure("", value, "ms", goal).reached is reached


def test_numbers_have_about_three_digits() -> None:
    """The precision depends on the size of the number."""
    assert [*map(number, (12345.6, 123.4, 12.34, 1.234, 0.1234, 0, nan))] == [
        *("12,346", "123", "12.3", "1.23", "0.123", "0.00", "-")
    ]


def test_other_proxies_have_a_table_of_their_own() -> None:
    """The table compares llamadoze's CPU with that of each other proxy."""
    beside = [*tables(results("direct", "haproxy", "llamadoze", "other"))][-1]
    assert beside.splitlines()[0] == "CPU of llamadoze"
    assert beside.splitlines()[2].split() == ["over", "other", "0.750", "0.750", "0.750"]
    assert "CPU of llamadoze" not in "".join(tables(results("direct", "haproxy", "llamadoze")))


def test_a_report_is_read_back_as_it_was_written() -> None:
    """Unknown values are null in the file."""
    written = json.loads(json.dumps(without_nan(report().written()), allow_nan=False))
    again = Report.read(written)
    assert without_nan(again.written()) == written
    assert written["parts"]["starts"][0]["value"] is None
    assert written["forwarding"]["cpu over haproxy's"][MANY]["llamadoze"] == 1.5
    assert len(written["forwarding"]["rounds"][MANY]["other"]) == 3
    assert {"what", "value", "unit", "goal", "each", "reached"} == written["goals"][0].keys()
    assert list(again.tables()) == list(report().tables())


def test_the_page_is_filled_and_its_prose_stays() -> None:
    """Filling the page again changes nothing."""
    text = "# A\n\n<!-- measured: swaps -->\nold\n<!-- end -->\n\nProse.\n"
    made = page.filled(text, report())
    assert made == page.filled(made, report())
    assert "| a swap | 50.0 ms | < 40 ms | missed |\n\n<!-- end -->\n\nProse.\n" in made
    assert "old" not in made


def test_what_was_not_measured_stays_on_the_page() -> None:
    """A run of one part does not empty the other passages."""
    text = "".join(f"<!-- measured: {name} -->\nold\n<!-- end -->\n" for name in page.PASSAGES)
    one = Report({}, {"optimised": True}, {}, None, {"swaps": []}, {})
    left = page.filled(text.replace("measured: where", "measured: goals"), one)
    assert left.count("old") == len(page.PASSAGES) - 1


def test_a_marker_without_a_passage_is_refused() -> None:
    """Without the error, a page would silently keep old figures."""
    with pytest.raises(ValueError, match="by the name of nonsense"):
        page.filled("<!-- measured: nonsense -->\n<!-- end -->\n", report())
    with pytest.raises(ValueError, match="no marker"):
        page.filled("Prose.\n", report())


def test_the_page_of_the_documentation_has_all_passages() -> None:
    """Each passage appears once, and the page says where it was measured."""
    found = [name for _, name, _ in page.PASSAGE.findall(page.PAGE.read_text())]
    assert sorted(found) == sorted(page.PASSAGES)
    assert "2 cores of a CPU, Linux 6.1, CPython 3.11.2 (an optimised build)" in page.where(
        report()
    )


def test_make_asks_an_interpreter_what_the_benchmark_tells() -> None:
    """The Makefile repeats the rule, because it cannot import ours before there is a `.venv`."""
    asked = re.search(r"^define OPTIMISED\n(.*?)^endef", MAKEFILE, re.MULTILINE | re.DOTALL)
    assert asked
    pytest.importorskip("ensurepip")  # without it, make does not take the interpreter at all
    done = subprocess.run([sys.executable, "-c", asked[1]], check=False)
    assert (done.returncode == 0) == (is_optimised() and sys.version_info < (3, 14))
