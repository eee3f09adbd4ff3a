"""Edits of a JSON text: the requested places change, and no other byte does."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.forwarding.filters import Edit, Put, Strip, edited, rename
from proxy.forwarding.jsontext import NotJson, Steps, Text, done
from tests.peers.client import ask
from tests.proxy.daemon import daemon, stub

LONGEST_STEP = 0.02  # seconds of this thread's own time, whatever else the machine does
KEYS = st.sampled_from(["a", "b", "model", 'q"uote', "é", "back\\slash", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def changed(text: bytes, *edits: Edit) -> bytes:
    return bytes(done(edited(text, list(edits))))


@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        (b'{"a":1.50,"m":2}', Put(("m",), 3), b'{"a":1.50,"m":3}'),
        (b'{ "a" : 1 }', Put(("b",), "x"), b'{ "a" : 1, "b": "x" }'),
        (b"{}", Put(("b",), None), b'{"b": null}'),
        (b'{"a":"\\u00e9\\/"}\n', Put(("b",), 1), b'{"a":"\\u00e9\\/", "b": 1}\n'),
        (b'{"a":1,"b":2}', Strip(("a",)), b'{"b":2}'),
        (b'{"a":1,  "b":2}', Strip(("b",)), b'{"a":1}'),
        (b'{"a":1}', Strip(("a",)), b"{}"),
        (b'{"a":1,"a":2,"b":3}', Strip(("a",)), b'{"b":3}'),
        (b'{"a":1,"a":2}', Put(("a",), 3), b'{"a":3,"a":3}'),
        (b'{"\\u0061":1}', Put(("a",), 3), b'{"\\u0061":3}'),
        (b'{"x":{"a":[1,{"a":2}]}}', Put(("x", "a", "1", "a"), 9), b'{"x":{"a":[1,{"a":9}]}}'),
        (b'{"a":"}\\"{"}', Put(("b",), 1), b'{"a":"}\\"{", "b": 1}'),
        (b'\xef\xbb\xbf{"a":1}', Put(("a",), 2), b'\xef\xbb\xbf{"a":2}'),
        (b'{"a":1e400,"b":-0}', Strip(("b",)), b'{"a":1e400}'),
        (
            b'{"a":12345678901234567890.10}',
            rename("m"),
            b'{"a":12345678901234567890.10, "model": "m"}',
        ),
    ],
)
def test_what_is_not_asked_for_stays_as_it_was(before: bytes, edit: Edit, after: bytes) -> None:
    """Numbers, escapes, blanks, the order and duplicate keys stay as they were."""
    assert changed(before, edit) == after


@given(st.dictionaries(KEYS, VALUES), st.booleans(), st.sampled_from([None, 1]))
def test_a_change_is_that_of_the_tree(data: dict[str, Any], is_ascii: bool, indent: int) -> None:
    """An edit of the text has the same result as an edit of the parsed data."""
    text = json.dumps(data, ensure_ascii=is_ascii, indent=indent).encode()
    assert json.loads(changed(text, Put(("a",), [1]))) == {**data, "a": [1]}
    without = {key: value for key, value in data.items() if key != "a"}
    assert json.loads(changed(text, Strip(("a",)))) == without
    assert changed(changed(text, Put(("new",), 1)), Strip(("new",))) in (text, reduced(text))


def reduced(text: bytes) -> bytes:
    """Return the text without the blanks before its end, which disappear with the added key."""
    return text[:-1].rstrip() + text[-1:]


@given(st.binary(max_size=60))
def test_what_is_no_json_is_told_or_left(text: bytes) -> None:
    """Invalid JSON raises NotJson or stays unchanged; no other error occurs."""
    for edit in (Put(("a", "b"), 1), Strip(("a", "b")), Put(("a",), 1)):
        try:
            changed(text, edit)
        except NotJson:
            continue


def longest_step(steps: Steps[Text]) -> float:
    times = [time.thread_time()]
    times.extend(time.thread_time() for _ in steps)
    times.append(time.thread_time())
    return sorted(later - earlier for earlier, later in pairwise(times))[-2:][0]


SIZE = 1 << 20


@pytest.mark.parametrize(
    "inside",
    [
        b'"x": "' + b"x" * SIZE + b'"',
        b'"x": "' + b'\\"' * (SIZE // 2) + b'"',
        b'"x": "' + b"\\\\" * (SIZE // 2) + b'"',
        b'"x": [' + (b"[" * 9000 + b"]" * 9000 + b",") * (SIZE // 18_000) + b"0]",
        b'"x": [' + b"{}," * (SIZE // 3) + b"0]",
        b'"x": [' + b'"",' * (SIZE // 3) + b"0]",
        b",".join(b'"k%d":0' % number for number in range(SIZE // 12)),
        b'"x":' + b" " * SIZE + b"0",
        b'"x": ' + b"1" * SIZE,
    ],
    ids=["text", "quotes", "slashes", "depth", "objects", "texts", "keys", "blanks", "digits"],
)
def test_a_large_body_is_changed_in_short_steps(inside: bytes) -> None:
    """No content of the body makes a step long."""
    body = b'{"model": "a", ' + inside + b"}"
    assert changed(body, rename("b")) == body.replace(b'"a"', b'"b"', 1)
    assert longest_step(edited(body, [rename("b")])) < LONGEST_STEP


def test_a_list_is_not_looked_through_for_a_name() -> None:
    """A list with a name in the path stays unchanged, however long it is, and causes no error."""
    body = b'{"x": [' + b"1234," * 900_000 + b"0]}"
    for edit in (Strip(("x", "y")), Strip(("x", "y", "z")), Put(("x", "y"), 1)):
        assert changed(body, edit) == body
    assert changed(body, Put(("x", "0"), 9)) == body.replace(b"1234", b"9", 1)


async def test_the_model_server_gets_what_the_client_has_written() -> None:
    """The daemon changes only the name of the model."""
    body = b'{ "model":"alias",\n "n": 1.50, "x": "\\u00fc\\/" ,"big":1234567890123456789012 }'
    async with daemon({"a": stub(aliases=["alias"], useModelName="served")}) as running:
        said = (await ask(running.port, "POST", "/v1/completions", body)).json()["body"]
    assert said == body.replace(b"alias", b"served").decode()
