"""The documentation's diagram of states agrees with the program's table of transitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from supervisor.states.table import TRANSITIONS, State

ROOT = Path(__file__).parents[1]
STATES = (ROOT / "docs/explanation/states.md").read_text()
DIAGRAM = re.search(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", STATES, re.MULTILINE | re.DOTALL)


def drawn() -> Iterator[tuple[str, str, str]]:
    """Yield each arrow: the state before, the state after, and the cause."""
    assert DIAGRAM
    for line in DIAGRAM[1].splitlines():
        arrow = re.fullmatch(r" {4}(\S+) --> (\w+)(?:: ([^:;]+))?", line)
        assert arrow, line
        if arrow[1] == "[*]":
            assert arrow[2] == State.STOPPED.value
        else:
            yield arrow[1], arrow[2], arrow[3]


def summarised() -> Iterator[tuple[str, str]]:
    """Yield the transitions of the list below the diagram: "`a`, `b` → `c`" is two of them."""
    for before, after in re.findall(r"^- (`[^→\n]+`) → (`[^:\n]+`): ", STATES, re.MULTILINE):
        yield from product(re.findall(r"`(\w+)`", before), re.findall(r"`(\w+)`", after))


def test_every_transition_is_drawn_or_summarised_once() -> None:
    """No other transition is drawn, and each arrow has a cause."""
    arrows = list(drawn())
    assert all(cause for _, _, cause in arrows)
    told = [(before, after) for before, after, _ in arrows] + list(summarised())
    table = {(before.value, after.value) for (before, _), after in TRANSITIONS.items()}
    assert sorted(told) == sorted(table)
