"""No input ends in a traceback: llamadoze loads what is right, and explains what is wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configschema import ConfigError, Problem, parse
from configschema.keys.fields import inside, is_section, types_of, without_none
from configschema.keys.schema import Config

EXAMPLE = (Path(__file__).parents[2] / "config.example.yaml").read_text()
PIECES = (
    *(
        "\n",
        " ",
        "  ",
        ":",
        "- ",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        "#",
        "|",
        ">",
        "&a ",
        "*a",
        "<<: *a",
    ),
    *(
        "${PORT}",
        "${MODEL_ID}",
        "${PID}",
        "${env.X}",
        "${env.NONE}",
        "${",
        "!!int ",
        "!x ",
        "---\n",
    ),
    *("null", "~", "true", "1e999", "-1", ".nan", "0x", "99999999999999999999", "\\", "\t", "\r"),
    *("\x00", "\ufeff", "\ue000", "ü", "\U0001f600", "(", "+", "%zz", "http://[", "://", "\u2028"),
)


def said(text: str) -> list[Problem]:
    """Return problems and warnings; any other exception than ConfigError fails the test."""
    try:
        loaded = parse(text, "f", {"X": "x"})
    except ConfigError as error:
        return [*error.problems, *error.warnings]
    return list(loaded.warnings)


def mutated(text: str, chance: random.Random) -> str:
    """Change a text in a few places, as a person or a broken tool might do by mistake."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice([0, 0, 1, 1, 2, 8, 40, 200]))
        lines = text.split("\n")
        match chance.randrange(5):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + chance.choice(PIECES) + text[end:]
            case 2:
                text = text[:at] + text[at:end] * 2 + text[end:]
            case 3:
                del lines[chance.randrange(len(lines))]
                text = "\n".join(lines)
            case _:
                line = chance.choice(lines)
                lines.insert(chance.randrange(len(lines)), chance.choice(["", "  "]) + line)
                text = "\n".join(lines)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_a_file_with_slips_is_loaded_or_refused_in_words(seed: int) -> None:
    """Each reported place lies inside the file."""
    chance = random.Random(seed)
    for _ in range(300):
        text = mutated(EXAMPLE, chance)
        lines = len(text.splitlines()) + 1
        for problem in said(text):
            assert 1 <= problem.line <= lines
            assert problem.column >= 1
            assert problem.message


@given(text=st.text(max_size=200))
def test_any_text_is_loaded_or_refused_in_words(text: str) -> None:
    """The text need not even be YAML."""
    said(text)


@given(text=st.lists(st.sampled_from([*PIECES, *types_of(Config)]), max_size=40).map("".join))
def test_any_row_of_pieces_is_loaded_or_refused_in_words(text: str) -> None:
    """The pieces are special characters of YAML and of macros, in any order."""
    said(text)


words = st.sampled_from(
    ["a", "b", "x ${PORT}", "${m}", "${PORT}", "http://x:1", "", "a | b", "+a", "5s", "pin", "none"]
)
scalars = st.one_of(words, st.integers(-2, 70000), st.booleans(), st.none(), st.floats())
anything = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner))
)


def of_kind(kind: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return values that mostly have the given kind, and sometimes any other."""
    kind, held = without_none(kind), inside(without_none(kind))
    if is_section(kind) and depth < 6:
        keys = {name: of_kind(of, depth + 1) for name, of in types_of(kind).items()}
        good: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=keys)
    elif held is not None and depth < 6:
        inner = of_kind(held, depth + 1)
        names = st.sampled_from(["a", "b", "m", "a/b"])
        one = st.lists(inner, max_size=3)
        good = st.one_of(one, st.dictionaries(names, inner, max_size=3))
    else:
        good = scalars
    return st.one_of(good, good, good, good, anything)


@settings(max_examples=200)
@given(data=of_kind(Config))
def test_any_data_is_loaded_or_refused_in_words(data: object) -> None:
    """The data has every key of the schema, with values of every kind."""
    said(yaml.safe_dump(data, sort_keys=False))
