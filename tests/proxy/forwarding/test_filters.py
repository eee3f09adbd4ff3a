"""How filters change the body of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configschema import Filters
from proxy.forwarding.filters import edited, edits_of
from proxy.forwarding.jsontext import done

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def filtered(data: dict[str, Any], filters: Filters, asked: str = "m") -> dict[str, Any]:
    body = done(edited(json.dumps(data).encode(), edits_of(filters, asked)))
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(
    ("strip", "left"),
    [
        ("temperature", {"model": "m", "a": {"b": 1, "c": [1, 2, 3]}}),
        ("temperature , a.b", {"model": "m", "a": {"c": [1, 2, 3]}}),
        ("temperature,a.c.1", {"model": "m", "a": {"b": 1, "c": [1, 3]}}),
        (
            "temperature,model,nothing,a.x.y,a.c.9,a.c.x,",
            {"model": "m", "a": {"b": 1, "c": [1, 2, 3]}},
        ),
        ("temperature,a", {"model": "m"}),
    ],
)
def test_parameters_are_removed_by_path(strip: str, left: dict[str, Any]) -> None:
    """A path that does not exist is ignored, and the model is never removed."""
    data = {"model": "m", "temperature": 1, "a": {"b": 1, "c": [1, 2, 3]}}
    assert filtered(data, Filters(strip_params=strip)) == left
    old_spelling = Filters(legacy_strip_params="temperature")
    assert filtered({"temperature": 1}, old_spelling) == {}


@pytest.mark.parametrize(
    ("path", "value", "there"),
    [
        ("top_k", 5, {"top_k": 5}),
        ("a.b.c", 1, {"a": {"b": {"c": 1}}}),
        ("list.0", "x", {"list": ["x"]}),
        ("list.-1", "x", {"list": ["x"]}),
        (r"a\.b", 1, {"a.b": 1}),
        ("model", "other", {}),
        ("model.name", "other", {}),
    ],
)
def test_parameters_are_set_by_path(path: str, value: object, there: dict[str, Any]) -> None:
    """Filters create missing objects and lists on the path."""
    assert filtered({"model": "m"}, Filters(set_params={path: value})) == {"model": "m", **there}


def test_what_is_set_for_a_name_comes_last() -> None:
    """A setting for the requested name overrides the others; other names' settings are ignored."""
    filters = Filters(
        strip_params="effort",
        set_params={"effort": "low", "top_k": 1},
        set_params_by_id={"m:high": {"effort": "high"}, "m": {"effort": "none"}},
    )
    assert filtered({"effort": "max"}, filters, "m:high") == {"effort": "high", "top_k": 1}
    assert filtered({}, filters, "other") == {"effort": "low", "top_k": 1}


@given(st.dictionaries(st.text(), JSON), st.text(), st.text(), JSON)
def test_no_path_breaks_on_any_body(
    data: dict[str, Any], strip: str, path: str, value: object
) -> None:
    """The filters never change the model."""
    data["model"] = "m"
    filters = Filters(strip_params=strip, set_params={path: value})
    assert filtered(data, filters)["model"] == "m"


def test_a_soft_default_is_set_only_where_the_request_has_none() -> None:
    """A question mark after the path marks a soft default; null counts as a value."""
    filters = Filters(set_params={"max_tokens?": 9, "a.b?": 1})
    assert filtered({}, filters) == {"max_tokens": 9, "a": {"b": 1}}
    assert filtered({"max_tokens": 5, "a": {"b": None}}, filters) == {
        "max_tokens": 5,
        "a": {"b": None},
    }
