"""How many tokens an answer took, as its model server states. Pure functions.

Owns the places where servers state this: ``usage`` of OpenAI's and Anthropic's APIs, and
``timings`` of llama.cpp. As in llama-swap, ``timings`` takes precedence.
"""

from __future__ import annotations

import json
import re
from collections import deque
from math import inf
from typing import Any, NamedTuple

import msgspec


class Tokens(NamedTuple):
    """The tokens of one answer; None is unknown.

    Attributes:
        prompt: tokens of the prompt.
        generated: tokens of the answer.
        cached: tokens of the prompt that were in a cache.
        drafted: tokens that a smaller model proposed.
        accepted: proposed tokens that were accepted.
        prompt_speed: tokens of the prompt that were read per second, as the server states.
        speed: tokens of the answer that were made per second, as the server states.
    """

    prompt: int | None = None
    generated: int | None = None
    cached: int | None = None
    drafted: int | None = None
    accepted: int | None = None
    prompt_speed: float | None = None
    speed: float | None = None

    def updated(self, later: Tokens) -> Tokens:
        """Return these counts, updated by later ones."""
        if self is UNKNOWN:
            return later
        said = {name: value for name, value in later._asdict().items() if value is not None}
        return self._replace(**said)


UNKNOWN = Tokens()
DECODER = json.JSONDecoder()
NAMED = re.compile(rb'"(usage|timings)"\s*:\s*(?=\{)')
MOST = 8  # objects of a text that are read, the last ones
MOST_TOKENS = 1 << 53  # no real count is larger, and no file can store a larger one
LONGEST = 4096  # bytes of one such object


def tokens_of(text: bytes) -> Tokens:
    """Read the counts from an answer or a part of it. Later counts take precedence.

    Only the objects themselves are parsed. If a model writes these names in its text, they have a
    backslash before each quote.
    """
    found = timed = UNKNOWN
    if b'"usage"' not in text and b'"timings"' not in text:  # faster than the pattern for both
        return found
    if text.startswith(b"{") and (counts := _of_whole(text)):  # as most answers are
        return counts
    for match in deque(NAMED.finditer(text), maxlen=MOST):
        data = _object_at(text, match.end())
        if match[1] == b"usage":
            found = found.updated(_of_usage(data))
        else:
            timed = timed.updated(_of_timings(data))
    return found if timed is UNKNOWN else found.updated(timed)


class _Said(msgspec.Struct):
    """The wanted members of an answer that is one object. All others are skipped, not built."""

    usage: Any = None
    timings: Any = None


_WHOLE = msgspec.json.Decoder(_Said)


def _of_whole(text: bytes) -> Tokens | None:
    """Return the counts in a whole answer. None if it is not whole, or has them deeper inside."""
    try:
        said = _WHOLE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = _of_usage(said.usage) if isinstance(said.usage, dict) else None
    if not isinstance(said.timings, dict):
        return found
    timed = _of_timings(said.timings)
    return timed if found is None else found.updated(timed)


def _object_at(text: bytes, place: int) -> dict[str, Any]:
    try:
        data, _ = DECODER.raw_decode(text[place : place + LONGEST].decode("utf-8", "replace"))
    except (ValueError, RecursionError):  # it was cut off
        return {}
    return data if isinstance(data, dict) else {}


def _of_timings(timings: dict[str, Any]) -> Tokens:
    return Tokens(
        _number(timings.get("prompt_n")),
        _number(timings.get("predicted_n")),
        _number(timings.get("cache_n")),
        _number(timings.get("draft_n")),
        _number(timings.get("draft_n_accepted")),
        _speed(timings.get("prompt_per_second")),
        _speed(timings.get("predicted_per_second")),
    )


def _of_usage(usage: dict[str, Any]) -> Tokens:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Tokens(
        _number(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _number(usage.get("completion_tokens", usage.get("output_tokens"))),
        _number(usage.get("cache_read_input_tokens") if cached is None else cached),
    )


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < MOST_TOKENS else None


def _speed(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < inf else None
