"""What an unknown name was probably meant to be."""

from __future__ import annotations

import pytest

from configschema import ConfigError, parse
from configschema.text.likeness import nearest


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("tll", ["ttl", "env", "proxy"], "ttl"),
        ("ba", ["ab", "cd"], "ab"),
        ("TLL", ["ttl"], "ttl"),
        ("tlt", ["ttl"], "ttl"),
        ("ps", ["pss", "PS"], "PS"),
        ("chta", ["chat", "chart"], "chat"),
        ("CHAT", ["chat"], "chat"),
        ("max_wait", ["maxWait"], "maxWait"),
        ("x" * 5000, ["y"], None),
        ("", ["a"], None),
        ("a", ["b", ""], None),
        ("env", ["ttl", "cmd"], None),
        ("til", ["ttl"], None),
        ("lxt", ["txl"], None),
    ],
)
def test_a_slip_of_the_fingers_is_similar_in_a_short_name_too(
    name: str, known: list[str], found: str | None
) -> None:
    """Two neighbours are swapped, or the wrong letter is doubled; other short names are not."""
    assert nearest(name, known, 0.8) == found


def test_a_slip_in_a_short_key_is_recognised() -> None:
    """In a model, in a macro and among models."""
    model = "models: {m: {cmd: 'sh ${PORT}', tll: 5}}"
    assert [one.message for one in parse(model).warnings] == [
        "unknown key, ignored; did you mean 'ttl'?"
    ]
    with pytest.raises(ConfigError, match=r"did you mean '\$\{ctx\}'\?$"):
        parse("macros: {ctx: 1}\nmodels: {m: {cmd: 'sh ${PORT} ${cxt}'}}")
    with pytest.raises(ConfigError, match=r"did you mean 'ab'\?$"):
        parse("models: {ab: {cmd: 'sh ${PORT}'}}\ngroups: {g: {members: [ba]}}")
