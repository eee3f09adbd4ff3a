"""Which target a selector chooses."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager

import pytest

from configschema import Selector, parse
from proxy.naming.directory import Directory, Target
from proxy.naming.selectors import Selectors, choose
from supervisor import State

CONFIG = parse(
    """
models:
  a: {cmd: x, proxy: 'http://h:1'}
  b: {cmd: x, proxy: 'http://h:2'}
  c: {cmd: x, proxy: 'http://h:3'}
peers:
  p: {proxy: 'http://h:4', models: [far]}
groups:
  g: {swap: false, members: [a, b, c]}
selectors:
  warm: {strategy: warm, targets: [a, b, c]}
  pin: {strategy: pin, targets: [b, a]}
  spill: {strategy: spillover, targets: [a, b, c], settings: {spillover: 2}}
  near: {strategy: spillover, targets: [a, p/far]}
"""
).config


def chosen(
    name: str, states: dict[str, State], reserved: dict[str, int] | None = None, turn: int = 0
) -> str | None:
    selector = CONFIG.selectors[name]
    counts = Counter(reserved or {})
    found = choose(
        selector, targets(selector), lambda m: states.get(m, State.STOPPED), counts, turn
    )
    return found.id if found else None


def targets(selector: Selector) -> list[Target]:
    directory = Directory(CONFIG)
    return [found for target in selector.targets if (found := directory.find(target))]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, "a"),
        ({"b": State.READY, "c": State.READY}, "b"),
        ({"b": State.STARTING, "c": State.READY}, "c"),
        ({"b": State.ASLEEP, "c": State.WAKING}, "c"),
        ({"c": State.ASLEEP}, "c"),
        ({"a": State.STOPPING}, "a"),
    ],
)
def test_warm_takes_what_serves_soonest(states: dict[str, State], expected: str) -> None:
    """The order: ready, starting or waking, asleep, and then the first target."""
    assert chosen("warm", states) == expected


def test_pin_takes_the_first() -> None:
    """Running models do not matter."""
    assert chosen("pin", {"a": State.READY}) == "b"


@pytest.mark.parametrize(
    ("states", "reserved", "expected"),
    [
        ({}, {}, "a"),
        ({"b": State.READY}, {}, "b"),
        ({"b": State.READY}, {"b": 1}, "b"),
        ({"b": State.READY}, {"b": 2}, "a"),
        ({"a": State.READY, "b": State.READY}, {"a": 2, "b": 1}, "b"),
        ({"a": State.READY, "b": State.READY, "c": State.READY}, {"a": 3, "b": 2, "c": 4}, "b"),
        ({"a": State.STOPPING}, {}, "b"),
        ({"a": State.STOPPING, "b": State.STOPPING, "c": State.STOPPING}, {}, None),
    ],
)
def test_spillover_fills_what_runs_before_it_brings_up_another(
    states: dict[str, State], reserved: dict[str, int], expected: str | None
) -> None:
    """The least busy running model is chosen until it has the configured number of requests."""
    assert chosen("spill", states, reserved) == expected


def test_equals_take_turns() -> None:
    """Equally busy models take turns, so that neither is idle."""
    states = {"a": State.READY, "b": State.READY}
    assert {chosen("spill", states, turn=turn) for turn in range(2)} == {"a", "b"}


def test_a_peer_is_always_there() -> None:
    """A peer's model always counts as running."""
    assert chosen("near", {}) == "p/far"
    assert chosen("near", {}, {"p/far": 1}) == "a"


def test_a_choice_counts_until_its_request_ends() -> None:
    """It does not matter how the request ends."""
    selectors, selector = Selectors(), CONFIG.selectors["spill"]

    def stopped(_: str) -> State:
        return State.STOPPED

    def choice() -> str:
        with selectors.chosen("spill", selector, targets(selector), stopped) as target:
            return target.id

    def chosen_now() -> AbstractContextManager[Target]:
        return selectors.chosen("spill", selector, targets(selector), stopped)

    with chosen_now() as first, chosen_now() as second:
        assert (first.id, second.id) == ("a", "a")
        assert choice() == "b"
    assert choice() == "a"
