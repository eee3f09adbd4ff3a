"""How many tokens an answer took, as its model server says itself. Pure functions.

Owns the places where servers say it: ``usage`` of OpenAI's and Anthropic's APIs, and ``timings`` of
llama.cpp, which win, as in llama-swap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

LONGEST_JSON = 1024 * 1024  # bytes of an answer that are parsed for it


@attrs.frozen
class Tokens:
    """What one answer took; None is unknown."""

    prompt: int | None = None
    generated: int | None = None
    cached: int | None = None

    def __or__(self, later: Tokens) -> Tokens:
        return Tokens(
            later.prompt if later.prompt is not None else self.prompt,
            later.generated if later.generated is not None else self.generated,
            later.cached if later.cached is not None else self.cached,
        )


UNKNOWN = Tokens()


def tokens_of(body: bytes, *, events: bool) -> Tokens:
    """Read the counts from an answer, or from as much as was kept of its events."""
    found = UNKNOWN
    for data in _events(body) if events else _whole(body):
        found |= _counts(data)
    return found


def _whole(body: bytes) -> Iterator[Any]:
    if b'"usage"' in body or b'"timings"' in body:
        yield from _parsed(body)


def _events(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        if line.startswith(b"data:") and (b'"usage"' in line or b'"timings"' in line):
            yield from _parsed(line[5:])


def _parsed(text: bytes) -> Iterator[Any]:
    if len(text) > LONGEST_JSON:
        return
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):  # a part of an event, or no JSON
        return
    yield data[-1] if isinstance(data, list) and data else data  # /infill answers a list


def _counts(data: Any) -> Tokens:  # noqa: ANN401 -- JSON
    found = UNKNOWN
    for holder in _holders(data):
        usage, timings = holder.get("usage"), holder.get("timings")
        if isinstance(usage, Mapping):
            found |= _of_usage(usage)
        if isinstance(timings, Mapping):
            found |= Tokens(
                _number(timings, ["prompt_n"]),
                _number(timings, ["predicted_n"]),
                _number(timings, ["cache_n"]),
            )
    return found


def _holders(data: Any) -> Iterable[Mapping[str, Any]]:  # noqa: ANN401 -- JSON
    if isinstance(data, Mapping):
        inner = (data.get("message"), data.get("response"), data)
        return [one for one in inner if isinstance(one, Mapping)]
    return []


def _of_usage(usage: Mapping[str, Any]) -> Tokens:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _number(details, ["cached_tokens"]) if isinstance(details, Mapping) else None
    return Tokens(
        _number(usage, ["prompt_tokens", "input_tokens"]),
        _number(usage, ["completion_tokens", "output_tokens"]),
        cached if cached is not None else _number(usage, ["cache_read_input_tokens"]),
    )


def _number(data: Mapping[str, Any], names: Iterable[str]) -> int | None:
    values = (data.get(name) for name in names)
    return next((value for value in values if type(value) is int and value >= 0), None)
