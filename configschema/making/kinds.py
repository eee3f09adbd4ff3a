"""What each kind of value accepts: a text, a truth value, a number, a command, a pattern.

Owns the one function of each kind. It accepts what llama-swap's YAML library accepts for its types:
a number in place of a text, ``yes`` in place of a truth value, but no text in place of a number.
`structuring` handles values that have other values in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from configschema.keys.commandline import Command, split
from configschema.keys.fields import (
    LOG_OUTPUTS,
    WHOLE,
    Duration,
    Expression,
    Gibibytes,
    Gpus,
    LogOutputs,
    Pattern,
    Secret,
    Whole,
)

MAY_BE_EMPTY = (
    ("group", "matrix", "memory"),
    ("fifo",),
)  # for llama-swap, an empty text is the same as no key
MOST_GIBIBYTES, MOST_GPUS = 1_000_000, 64
YES, NO = frozenset({"y", "Y", "yes", "on"}), frozenset({"n", "N", "no", "off"})


class WrongValue(ValueError):
    """A value is not of its kind. `values` fill the ``{}`` of the message."""

    def __init__(self, message: str, *values: object) -> None:
        self.message = message
        self.values = values
        super().__init__(message)


def _text(value: object) -> str:
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise WrongValue("expected a text, found {}", value)


def _secret(value: object) -> Secret:
    if isinstance(value, (dict, list)):
        raise WrongValue("expected a secret as text, such as an API key")
    return Secret(_text(value))


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in YES | NO:
        return value in YES
    raise WrongValue("expected true or false, found {}", value)


def _duration(value: object) -> Duration:
    if not isinstance(value, str):
        raise WrongValue("expected a time such as 5s or 1m30s, found {}", value)
    return Duration(value)


def _log_outputs(value: object) -> LogOutputs:
    outputs = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    if outputs not in (["both"], ["none"]) and not set(outputs) <= set(LOG_OUTPUTS):
        words = "both, none, or some of proxy, upstream and http, with commas"
        raise WrongValue(f"expected {words}, found {{}}", value)
    return LogOutputs(str(value))


def _whole(kind: Whole) -> Callable[[object], int]:
    def whole(value: object) -> int:
        number = _number(value, kind.cut)
        too_low = kind.lowest is not None and number is not None and number < kind.lowest
        if number is None or too_low or (number > kind.highest and not kind.clamp):
            digits = isinstance(value, str) and value.strip("-").isdecimal()
            way = "; write it without quotes" if digits else ""
            is_high = number is not None and number > kind.highest and not kind.clamp
            most = f", at most {kind.highest}" if is_high and "to" not in kind.expected else ""
            raise WrongValue(f"expected {kind.expected}{most}, found {{}}{way}", value)
        return min(number, kind.highest)

    return whole


def _number(value: object, cut: bool) -> int | None:
    """Return a whole number, or None for any other value. An empty value under a name is 0."""
    if value is None:
        return 0
    if isinstance(value, float) and math.isfinite(value) and (cut or value.is_integer()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _gibibytes(value: object) -> Gibibytes:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) <= MOST_GIBIBYTES:  # type: ignore[arg-type] # it is one
        raise WrongValue("expected GiB, at least 0, found {}", value)
    return Gibibytes(float(value))  # type: ignore[arg-type] # as above


def _gpus(value: object) -> Gpus:
    """Accept a number of GPUs, or a list of GPUs by NVIDIA's indexes or UUIDs."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if isinstance(value, list):
        names = tuple(map(_text, value))
        if names and all(names) and len(set(names)) == len(names):
            return Gpus(names)
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_GPUS:
        return Gpus(value)
    raise WrongValue("expected how many GPUs, or a list of which, found {}", value)


def _command(value: object) -> Command:
    if isinstance(value, (dict, list)):
        raise WrongValue("expected a command as text, found {}", value)
    text = _text(value)
    if "\0" in text:
        raise WrongValue("has a NUL character, which no argument can have")
    return split(text)


def _pattern(value: object) -> Pattern:
    text = _text(value)
    if text:
        import re2  # slow to import, and few files need it

        quiet = re2.Options()
        quiet.log_errors = False
        try:
            re2.compile(text, quiet)
        except re2.error as error:
            reason = error.args[0].decode("utf-8", "replace")
            message = f"{{}} is no regular expression ({_plain(reason)}); RE2 reads it"
            raise WrongValue(f"{message}, as in llama-swap", text) from None
    return Pattern(text)


def _plain(reason: str) -> str:
    """Return RE2's reason without the part of the pattern that it quotes."""
    return reason.partition(":")[0]


def _expression(value: object) -> Expression:
    text = _text(value)
    if text:
        from configschema.making.expressions import wrong_with  # slow to import, and rarely needed

        if wrong := wrong_with(text):
            message, *word = filter(None, wrong)
            raise WrongValue(message, text, *word)
    return Expression(text)


def word(value: object, kind: object) -> str:
    """Return a value that must be one of the words of a ``Literal``."""
    words = get_args(kind)
    if value == "" and words in MAY_BE_EMPTY:
        return words[0]
    if not isinstance(value, str) or value not in words:
        raise WrongValue(f"expected {' or '.join(words)}, found {{}}", value)
    return value


KINDS: Mapping[Any, Callable[[object], object]] = {
    str: _text,
    bool: _truth,
    Secret: _secret,
    Command: _command,
    Pattern: _pattern,
    Duration: _duration,
    Expression: _expression,
    Gibibytes: _gibibytes,
    Gpus: _gpus,
    LogOutputs: _log_outputs,
    **{kind: _whole(numbers) for kind, numbers in WHOLE.items()},
}
"""The function of each kind, which takes the value."""
