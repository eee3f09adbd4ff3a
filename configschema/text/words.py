"""Plain YAML words that are more than text: numbers, truth values, empty values.

Owns which words those are. The rules are those of Go's yaml.v3, which reads llama-swap's files:
``0x10``, ``1_000`` and ``1e3`` are numbers; ``yes``, ``on``, ``12:30`` and ``2026-01-01`` are not.
As in llama-swap, a whole number inside a text is shown in decimal: 16, 1000. Other numbers stay as
the file has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STARTS = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
LONGEST_NUMBER = 40


class Real(float):
    """A number that is shown as the file has it: ``1.0`` is not ``1``, ``1.10`` is not ``1.1``."""

    written: str

    def __str__(self) -> str:
        """Return the number as the file has it."""
        return self.written


def plain_word(text: str) -> str | int | float | bool | None:
    """Return the value of a plain word.

    Raises:
        ValueError: the word is a number of absurd length.
    """
    if text in WORDS:
        return WORDS[text]
    if text[0] not in _STARTS:
        return text
    digits = text.replace("_", "")
    if _INT.fullmatch(digits):
        return _whole(digits)
    if _FLOAT.fullmatch(digits) or _ENDLESS.fullmatch(text):
        return _real(digits)
    return text


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits is too long")
    sign, body = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
    if body[:1] == "0" and body[1:].isdigit():
        body = "0o" + body[1:]  # Go reads 0777 as octal
    return int(sign + body, 0)


def _real(digits: str) -> float:
    number = Real(digits.replace(".inf", "inf").replace(".nan", "nan").lower().lstrip())
    number.written = digits.lstrip("+")
    return number


def _explicit_bool(text: str) -> bool:
    if not isinstance(value := WORDS.get(text), bool):
        raise ValueError(text)  # noqa: TRY004 -- what is wrong is the file's value
    return value


def _explicit_int(text: str) -> int:
    value = plain_word(text)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(text)  # noqa: TRY004 -- what is wrong is the file's value
    return value


def _explicit_float(text: str) -> float:
    value = plain_word(text)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(text)  # noqa: TRY004 -- what is wrong is the file's value
    return float(value)


EXPLICIT: dict[str, Callable[[str], object]] = {
    "!": str,
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": _explicit_bool,
    "tag:yaml.org,2002:int": _explicit_int,
    "tag:yaml.org,2002:float": _explicit_float,
}
