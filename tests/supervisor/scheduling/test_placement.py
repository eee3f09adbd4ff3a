"""Which models must make room: groups and a matrix, with llama-swap's results."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configschema import parse
from configschema.rules.matrixlanguage import Either, Expression, Name, read
from supervisor.scheduling import placement
from supervisor.scheduling.placement import MakeRoom, placement_of

MODELS = (
    "models: {" + ", ".join(f"{name}: {{cmd: x, proxy: 'http://h:9'}}" for name in "abcd") + "}\n"
)


def rules(text: str = "") -> MakeRoom:
    return placement_of(parse(MODELS + text).config)


def leaving(text: str, wanted: str, running: str) -> str:
    """Return the models that must leave, as a word of their names."""
    return "".join(sorted(rules(text)(wanted, frozenset(running))))


def test_without_rules_one_model_runs_at_a_time() -> None:
    """The wanted model itself never leaves."""
    assert leaving("", "a", "bcd") == "bcd"
    assert leaving("", "a", "ab") == "b"
    assert leaving("", "a", "a") == ""


GROUPS = """
groups:
  swapping: {swap: true, exclusive: EXCLUSIVE, members: [a, b]}
  together: {swap: false, exclusive: EXCLUSIVE, persistent: PERSISTENT, members: [c, d]}
"""


def grouped(exclusive: str = "false", persistent: str = "false") -> str:
    return GROUPS.replace("EXCLUSIVE", exclusive).replace("PERSISTENT", persistent)


@pytest.mark.parametrize(
    ("text", "wanted", "running", "expected"),
    [
        (grouped(), "a", "bcd", "b"),
        (grouped(), "c", "abd", ""),
        (grouped("true"), "a", "bcd", "bcd"),
        (grouped("true"), "c", "abd", "ab"),
        (grouped("true", "true"), "a", "bcd", "b"),
        (grouped("true", "true"), "c", "abd", "ab"),
    ],
)
def test_groups_say_who_leaves(text: str, wanted: str, running: str, expected: str) -> None:
    """`swap` acts within a group, `exclusive` on other groups; `persistent` protects from that."""
    assert leaving(text, wanted, running) == expected


def test_models_in_no_group_swap_with_each_other_and_stop_the_others() -> None:
    """They are in a group of their own, which has llama-swap's defaults."""
    text = "groups: {g: {swap: false, exclusive: false, members: [c, d]}}"
    assert leaving(text, "a", "bcd") == "bcd"
    assert leaving(text, "c", "ad") == ""


def test_a_group_that_is_not_exclusive_stops_not_even_an_exclusive_one() -> None:
    """Which of the two gives way depends on the order, as in llama-swap."""
    text = "groups: {one: {exclusive: true, members: [a]}, two: {exclusive: false, members: [b]}}"
    assert leaving(text, "a", "b") == "b"
    assert leaving(text, "b", "a") == ""


@pytest.mark.parametrize(
    ("matrix", "wanted", "running", "expected"),
    [
        ("sets: {s: a & b & c}", "a", "bc", ""),
        ("sets: {s: a & b}", "a", "bc", "c"),
        ("sets: {s: (a | b) & c}", "a", "bc", "b"),
        ("sets: {s: b & c}", "a", "bc", "bc"),
        ("sets: {one: a & b, two: a & c}", "a", "bc", "c"),
        ("sets: {two: a & c, one: a & b}", "a", "bc", "b"),
        ("sets: {one: a & b, two: a & c}, evict_costs: {c: 5}", "a", "bc", "b"),
        ("sets: {s: a & b | a & c}", "a", "bc", "c"),
        ("sets: {last: +first | a & c, first: a & b}", "a", "bc", "c"),
        ("sets: {one: a & b, two: a & c & d}, evict_costs: {b: 2}", "a", "bcd", "cd"),
        ("vars: {x: a, y: c}, evict_costs: {y: 5}, sets: {one: x & b, two: x & y}", "a", "bc", "b"),
    ],
)
def test_a_matrix_evicts_what_costs_least(
    matrix: str, wanted: str, running: str, expected: str
) -> None:
    """At equal cost, the first set counts; a model in no set runs alone."""
    assert leaving(f"matrix: {{{matrix}}}", wanted, running) == expected


def written_out(tree: Expression) -> list[frozenset[str]]:
    """Return the alternatives of an expression, from left to right."""
    match tree:
        case Name(name):
            return [frozenset(name)]
        case Either(parts):
            return [one for part in parts for one in written_out(part)]
        case _:
            chosen = product(*(written_out(part) for part in getattr(tree, "parts", ())))
            return [frozenset().union(*some) for some in chosen]


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda parts, sign: f"({sign.join(parts)})",
        st.lists(inner, min_size=2, max_size=3),
        st.sampled_from([" & ", " | "]),
    )


expressions = st.recursive(st.sampled_from("abcd"), _nested, max_leaves=10)


@pytest.mark.parametrize("most", [20_000, 0], ids=["written out", "made for each question"])
@given(
    sets=st.lists(expressions, min_size=1, max_size=4),
    costs=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9)),
    wanted=st.sampled_from("abcd"),
    running=st.frozensets(st.sampled_from("abcd")),
)
def test_no_other_set_would_have_cost_less(
    most: int, sets: list[str], costs: dict[str, int], wanted: str, running: frozenset[str]
) -> None:
    """The result is checked against all alternatives, written out."""
    lines = "\n".join(f"    s{number}: {text}" for number, text in enumerate(sets))
    text = f"matrix:\n  evict_costs: {costs}\n  sets:\n{lines}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "MOST_WRITTEN_OUT", most)
        found = rules(text)(wanted, running)
    others = running - {wanted}
    every = [one for line in sets for one in written_out(read(line)) if wanted in one]
    prices = [sum(costs.get(name, 1) for name in others - one) for one in every]
    price = sum(costs.get(name, 1) for name in found)
    if every:
        assert price == min(prices)
        assert any(found == others - one for one in every)
    else:
        assert found == others


def test_of_equal_costs_the_first_alternative_counts_whichever_way_it_is_asked() -> None:
    """A large matrix is not written out, and gives the same answers."""
    text = "matrix: {sets: {one: (a & b) | (a & c) | (a & d), two: a & c & d}}"
    found = []
    for most in (20_000, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(placement, "MOST_WRITTEN_OUT", most)
            found.append([leaving(text, "a", running) for running in ("bc", "cd", "bd", "bcd")])
    assert found[0] == found[1] == ["c", "", "d", "b"]
