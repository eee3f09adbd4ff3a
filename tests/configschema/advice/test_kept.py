"""llamadoze names two models that both have `keep` and can never run together."""

from __future__ import annotations

import pytest

from configschema import parse

MODELS = "models: {a: {cmd: 'x ${PORT}', keep: %s}, b: {cmd: 'x ${PORT}', keep: true}, c: {cmd: 'x ${PORT}', keep: true}}"  # noqa: E501 -- YAML in one line


def named(rule: str, a: str = "true") -> list[tuple[str, str]]:
    warnings = parse(rule + MODELS % a).warnings
    return [(one.path, one.message) for one in warnings if "keep is set" in one.message]


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    [
        ("", "a", "b"),
        ("groups: {g: {swap: false, members: [a, b]}}\n", "a", "c"),
        ("matrix: {sets: {s: a & b, t: b & c}}\n", "a", "c"),
    ],
)
def test_two_that_are_kept_apart_are_named_once(rule: str, first: str, second: str) -> None:
    """The warning names only the first two of the models, however many there are."""
    [(path, message)] = named(rule)
    assert path == f"models.{second}.keep"
    assert message.startswith(
        f"keep is set here and for '{first}', but the two may not run together"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "groups: {g: {swap: false, members: [a, b, c]}}\n",
        "groups: {g: {persistent: true, swap: false, members: [a, b]}}\n",
        "matrix: {sets: {s: a & b & c}}\n",
        "routing: {router: {use: memory}}\n",
    ],
)
def test_those_that_may_meet_are_not(rule: str) -> None:
    """With routing by memory, any models may run together if there is room."""
    assert named(rule) == []


def test_a_single_one_is_not() -> None:
    """The other models have no `keep`, so they make room for the one that has it."""
    two_are_kept = "groups: {g: {swap: false, members: [b, c]}}\n"
    assert named(two_are_kept, a="false") == []
