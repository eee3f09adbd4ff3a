"""The expressions in the sets of a matrix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configschema.rules.matrixlanguage import (
    Either,
    Expression,
    Name,
    Reference,
    Together,
    WrongExpression,
    leaves,
    read,
)
from configschema.rules.matrixsets import Sets


def written(expression: Expression) -> str:
    """Write a tree with all its parentheses."""
    match expression:
        case Name(name):
            return name
        case Reference(name):
            return f"+{name}"
        case Together(parts):
            return f"({' & '.join(map(written, parts))})"
        case Either(parts):
            return f"({' | '.join(map(written, parts))})"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", "a"),
        (" ( a ) ", "a"),
        ("a|b&c", "(a | (b & c))"),
        ("(a|b)&c", "((a | b) & c)"),
        ("a&b&c|d", "((a & b & c) | d)"),
        ("+base & llama-3.1_8b", "(+base & llama-3.1_8b)"),
        ("qwen-中文 | é", "(qwen-中文 | é)"),
    ],
)
def test_together_binds_tighter_than_either(text: str, tree: str) -> None:
    """The precedence of & and | is the same as in llama-swap."""
    assert written(read(text)) == tree


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("", "the expression is empty", 0),
        ("   ", "the expression is empty", 0),
        ("a &", "expected a name, '+' or '(', found the end", 3),
        ("a b", "expected '&', '|' or the end, found 'b'", 2),
        ("a)", "expected '&', '|' or the end, found ')'", 1),
        ("()", "expected a name, '+' or '(', found ')'", 1),
        ("a & %", "unexpected '%'", 4),
        ("+ (a)", "expected the name of a set right after '+', found '('", 2),
        ("+ a", "expected the name of a set right after '+', found 'a'", 2),
        ("(a | (b)", "expected ')' for the '(' at character 1, found the end", 8),
        ("(" * 101 + "a" + ")" * 101, "parentheses are nested more than 100 deep", 100),
    ],
)
def test_faults_point_into_the_expression(text: str, message: str, at: int) -> None:
    """An error tells how many characters stand before the fault."""
    with pytest.raises(WrongExpression) as caught:
        read(text)
    assert (str(caught.value), caught.value.at) == (message, at)


names = st.sampled_from(["a", "b", "c", "d"])
trees = st.recursive(
    names,
    lambda inner: st.lists(inner, min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from([f"({' & '.join(parts)})", f"({' | '.join(parts)})"])
    ),
    max_leaves=8,
)


def alternatives(expression: Expression) -> set[frozenset[str]]:
    """Return all the sets that an expression stands for."""
    match expression:
        case Name(name):
            return {frozenset({name})}
        case Either(parts):
            return set().union(*map(alternatives, parts))
        case Together(parts):
            found = {frozenset[str]()}
            for part in parts:
                found = {one | other for one in found for other in alternatives(part)}
            return found
        case Reference():
            raise AssertionError


@given(text=trees, wanted=st.frozensets(names, min_size=1))
def test_who_may_run_together_is_what_the_written_out_sets_say(
    text: str, wanted: frozenset[str]
) -> None:
    """llamadoze finds this out without writing the sets out."""
    tree = read(text)
    expected = any(wanted <= found for found in alternatives(tree))
    assert Sets({"s": tree}, {}).allow_together(wanted) is expected


@given(text=st.text(alphabet="ab+|&() %", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Names in what is read stand at the positions that the leaves report."""
    try:
        found = [(leaf.at, leaf.name) for leaf in leaves(read(text))]
    except WrongExpression as error:
        found = [(error.at, "")]
    for at, name in found:
        assert 0 <= at <= len(text)
        assert text[at:].lstrip("+ ").startswith(name)


def test_many_alternatives_are_not_written_out() -> None:
    """A check against a million possible sets takes almost no time."""
    text = " & ".join(f"(a{n} | b{n})" for n in range(20))
    sets = Sets({"s": read(text)}, {})
    assert sets.allow_together(frozenset({"a1", "b2", "a19"}))
    assert not sets.allow_together(frozenset({"a1", "b1"}))


def test_chains_of_references_may_be_long() -> None:
    """The references may point up or down in the file."""
    names = [f"s{number}" for number in range(3000)]
    for order in (names, list(reversed(names))):
        texts = {name: "a & b" if name == "s0" else f"+s{int(name[1:]) - 1}" for name in order}
        sets = Sets({name: read(text) for name, text in texts.items()}, {})
        assert sets.allow_together(frozenset({"a", "b"}))
        assert sets.partners()["a"] >= {"b"}


def test_questions_about_large_expressions_have_an_end() -> None:
    """llamadoze asks which models run together for files of any size."""
    count = 24
    either = read(" & ".join(f"(a{n} | b{n})" for n in range(count)))
    wanted = frozenset(f"a{n}" for n in range(count))
    assert Sets({"s": either}, {}).allow_together(wanted)
    read(" | ".join(f"m{n}" for n in range(100_000)))


@given(text=trees)
def test_partners_are_the_pairs_that_may_run_together(text: str) -> None:
    """`partners` and `allow_together` must agree."""
    sets = Sets({"s": read(text)}, {})
    partners = sets.partners()
    for one in "abcd":
        for other in set("abcd") - {one}:
            together = sets.allow_together(frozenset({one, other}))
            assert (other in partners.get(one, ())) is together
