"""Mistakes in a JMESPath expression that has to be true or false of an answer.

Owns the mistakes that compile but are never true: a bare ``true``, a field in double quotes where a
text is meant, an unknown function. Imported only if a file has an expression, which is rare.
"""

from __future__ import annotations

from itertools import pairwise

import jmespath
from jmespath.functions import Functions
from jmespath.lexer import Lexer

_COMPARES = frozenset({"eq", "ne", "lt", "lte", "gt", "gte"})
_LITERALS = frozenset({"true", "false", "null"})


def wrong_with(expression: str) -> tuple[str, str] | None:
    """Return what is wrong with an expression, and the wrong word; None if nothing is.

    The message has ``{}`` for the expression and for the word.
    """
    try:
        jmespath.compile(expression)
        tokens = list(Lexer().tokenize(expression))
    except (jmespath.exceptions.JMESPathError, RecursionError):
        return "{} is not a valid JMESPath expression", ""
    for before, token in pairwise([{"type": "begin", "value": ""}, *tokens]):
        kind, word = token["type"], str(token["value"])
        if before["type"] in _COMPARES and kind == "unquoted_identifier" and word in _LITERALS:
            return "in {}, {} is the name of a field; for the value, use backticks", word
        if before["type"] in _COMPARES and kind == "quoted_identifier":
            return "in {}, {} is the name of a field; for a text, use single quotes", word
        name = str(before["value"])
        calls = kind == "lparen" and before["type"] == "unquoted_identifier"
        if calls and name not in Functions.FUNCTION_TABLE:
            return "in {}, the function {} does not exist", name
    return None
