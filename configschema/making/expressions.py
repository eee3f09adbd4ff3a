"""What a JMESPath expression must not be, if it is to be true or false of an answer.

Owns the slips that compile and never hold: a bare ``true``, a field in double quotes where a text
is meant, a function that there is not. Imported where a file has an expression: few have.
"""

from __future__ import annotations

from itertools import pairwise

import jmespath
from jmespath.functions import Functions
from jmespath.lexer import Lexer

_COMPARES = frozenset({"eq", "ne", "lt", "lte", "gt", "gte"})
_LITERALS = frozenset({"true", "false", "null"})


def wrong_with(expression: str) -> tuple[str, str] | None:
    """Return what is wrong with an expression, and the word that is; None if it is good.

    The message has ``{}`` for the expression and for the word.
    """
    try:
        jmespath.compile(expression)
        tokens = list(Lexer().tokenize(expression))
    except (jmespath.exceptions.JMESPathError, RecursionError):
        return "{} is no JMESPath expression", ""
    for before, token in pairwise([{"type": "begin", "value": ""}, *tokens]):
        kind, word = token["type"], str(token["value"])
        if before["type"] in _COMPARES and kind == "unquoted_identifier" and word in _LITERALS:
            return "in {}, {} is a field; write it in backticks", word
        if before["type"] in _COMPARES and kind == "quoted_identifier":
            return "in {}, {} is a field; write a text in single quotes", word
        name = str(before["value"])
        calls = kind == "lparen" and before["type"] == "unquoted_identifier"
        if calls and name not in Functions.FUNCTION_TABLE:
            return "in {}, there is no function {}", name
    return None
