"""Memory keys that have no effect are named, each kind once."""

from __future__ import annotations

import pytest

from configschema import ConfigError, parse

MODELS = (
    "models: {a: {cmd: 'x ${PORT}', memory: {gpu: 3}, gpus: 2}, b: {cmd: 'x ${PORT}', gpus: 2}}"
)


def named(text: str) -> dict[str, str]:
    return {one.path: one.message for one in parse(text).warnings if "memory" in one.message}


def test_sizes_without_the_rule_that_heeds_them_are_named_once() -> None:
    """One warning is enough, however many models have the key."""
    found = named(MODELS)
    assert found.keys() == {"models.a.memory", "models.a.gpus"}
    assert found["models.a.gpus"].endswith("router.use is not memory (and 1 more model)")


def test_sizes_are_right_where_memory_says_who_runs() -> None:
    """With `use: memory` the sizes take effect, so there is no warning."""
    assert named("routing: {router: {use: memory}}\n" + MODELS) == {}


def test_a_rule_that_memory_takes_the_place_of_is_named() -> None:
    """The other rule's settings may stay for comparisons, but they have no effect."""
    settings = "settings: {groups: {g: {members: [a, b]}}, matrix: {sets: {s: a & b}}}"
    found = named(f"routing: {{router: {{use: memory, {settings}}}}}\n{MODELS}")
    assert found.keys() == {
        "routing.router.settings.groups",
        "routing.router.settings.matrix",
    }


def test_a_host_without_memory_for_models_is_refused() -> None:
    """The error says what to do instead."""
    text = "routing: {router: {use: memory, settings: {memory: {hostMemory: 0}}}}\n" + MODELS
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "hostMemory: leaves no memory for models: remove it" in str(caught.value)
