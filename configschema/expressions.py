"""What a JMESPath expression must not be, if it is to be true or false of an answer.

Owns the slips that compile and never hold: a bare ``true``, a field in double quotes where a text
is meant, a function that there is not. Imported where a file has an expression: few have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jmespath
from jmespath.functions import Functions

_QUOTED = re.compile(r'(?:[=!]=|[<>]=?)\s*("[^"]*")')
_LITERALS = frozenset({"true", "false", "null"})


def wrong_with(expression: str) -> str | None:
    """Return what is wrong with an expression, with ``{}`` for itself, or None."""
    try:
        tree = jmespath.compile(expression).parsed
    except (jmespath.exceptions.JMESPathError, RecursionError):
        return "{} is no JMESPath expression"
    for node in _nodes(tree):
        name = node.get("value")
        if node["type"] == "field" and name in _LITERALS:
            return f"in {{}}, {name} is a field; write `{name}` in backticks"
        if node["type"] == "function_expression" and name not in Functions.FUNCTION_TABLE:
            return f"in {{}}, there is no function {name}"
    if found := _QUOTED.search(expression):
        return f"in {{}}, {found[1]} is a field; write a text in single quotes"
    return None


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _nodes(child)
