"""If a value has faults, llamadoze still checks the rest of its list or section."""

from __future__ import annotations

import pytest

from configschema import ConfigError, parse


def _said(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f", environ={})
    return [str(problem) for problem in caught.value.problems]


def test_all_faults_of_a_list_are_said_and_those_beside_it() -> None:
    """Each error names its place in the list."""
    text = """\
models:
  m:
    cmd: sh ${PORT}
    capabilities:
      in: [text, [], {}]
      tools: 5
"""
    assert _said(text) == [
        "f:5:18: models.m.capabilities.in.1: expected a text, found a list",
        "f:5:22: models.m.capabilities.in.2: expected a text, found names and values",
        "f:6:7: models.m.capabilities.tools: expected true or false, found 5",
    ]


def test_faults_in_a_list_leave_the_other_keys_of_its_section() -> None:
    """However many faults the list has, llamadoze still reports faults of the other keys."""
    text = "models: {m: {cmd: 'sh ${PORT}'}}\nselectors: {s: {targets: [[], {}]}}\n"
    assert any("selectors.s.strategy: is required" in problem for problem in _said(text))


def test_a_fault_deep_in_a_list_is_said_with_the_whole_way_to_it() -> None:
    """The path of the error leads through names, lists and sections."""
    text = "models: {m: {cmd: sh, verify: {asleep: [{}, {headers: {a: []}, timeout: x}]}}}\n"
    assert [problem.partition(": expected")[0] for problem in _said(text)][-2:] == [
        "f:1:56: models.m.verify.asleep.1.headers.a",
        "f:1:64: models.m.verify.asleep.1.timeout",
    ]


def test_one_name_with_a_fault_leaves_the_others() -> None:
    """llamadoze refuses only the faulty value, and still reports what is wrong with the others."""
    text = "models: {m: {cmd: 'sh ${PORT}'}}\ngroups: {a: {members: [nobody]}, b: 5}\n"
    assert [problem.partition(" ")[0] for problem in _said(text)] == [
        "f:2:24:",
        "f:2:34:",
    ]
