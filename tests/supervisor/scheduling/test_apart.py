"""Models of several machines: which of them can be in each other's way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from configschema import parse
from supervisor.scheduling.apart import near
from supervisor.scheduling.outlook import rules_for
from supervisor.states.table import State

TEXT = """\
clusters: {hpc: {}}
allocations: {shared: {gres: 'gpu:1'}}
models: {m: {cmd: 'x ${PORT}'%s}, n: {cmd: 'x ${PORT}'}, o: {cmd: x, in: shared}}
"""


def server(text: str, name: str, state: State) -> Any:
    model = parse(text).config.models[name]
    return SimpleNamespace(model=model, at=SimpleNamespace(state=state))


def test_only_models_of_one_home_make_room_for_each_other() -> None:
    """This machine counts as a home, too."""
    rules = rules_for(parse(TEXT % "").config)
    assert rules.make_room("n", frozenset({"m", "o"})) == {"m"}
    assert rules.make_room("o", frozenset({"m", "n"})) == frozenset()


def test_a_model_counts_where_its_server_still_runs() -> None:
    """A reload moves it only when its requests have ended; until then it holds memory here."""
    moved = TEXT % ", in: shared"
    rules = rules_for(parse(moved).config)
    assert rules.make_room("n", frozenset({"m"})) == frozenset()
    running = {"m": server(TEXT % "", "m", State.READY)}
    assert rules.as_they_run(running, running).make_room("n", frozenset({"m"})) == {"m"}
    stopped = {"m": server(TEXT % "", "m", State.STOPPED)}
    assert rules.as_they_run(stopped, stopped) is rules


def test_a_model_that_left_the_cluster_holds_up_nobody_here() -> None:
    """Its server is still draining in the cluster."""
    rules = rules_for(parse(TEXT % "").config)
    running = {"m": server(TEXT % ", in: shared", "m", State.READY)}
    found = rules.as_they_run(running, running)
    assert found.make_room("n", frozenset({"m"})) == frozenset()
    assert near("o", frozenset({"m", "n"}), found.homes) == {"m"}
