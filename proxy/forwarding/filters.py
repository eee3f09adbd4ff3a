"""The changes to a request's JSON body on its way to a model. Pure functions.

Owns the order (stripParams, setParams, setParamsByID) and the paths, which are llama-swap's. A path
is keys and numbers with dots between them, and a backslash before a dot that belongs to a key. With
a question mark at its end, a path sets only what the request lacks. `jsonedits` changes the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from configschema import Filters
from proxy.forwarding.jsonedits import with_value, without
from proxy.forwarding.jsontext import Steps, Text

PROTECTED = "model"  # this member names the model; use useModelName to change it
SOFT = "?"


@attrs.frozen
class Strip:
    """Remove a parameter."""

    path: tuple[str, ...]

    def applied(self, body: Text) -> Steps[Text]:
        """Return the body without the parameter."""
        return without(body, self.path)


@attrs.frozen
class Put:
    """Set a parameter; with `soft`, only if the request lacks it."""

    path: tuple[str, ...]
    value: Any
    soft: bool = False

    def applied(self, body: Text) -> Steps[Text]:
        """Return the body with the parameter."""
        return with_value(body, self.path, self.value, soft=self.soft)


Edit = Strip | Put


def edits_of(filters: Filters, asked: str) -> list[Edit]:
    """Return the changes that filters make to a body, in their order.

    Args:
        filters: the filters of the model or the peer.
        asked: the model's name in the request.
    """
    if not (
        filters.strip_params
        or filters.legacy_strip_params
        or filters.set_params
        or filters.set_params_by_id
    ):
        return []
    by_id = filters.set_params_by_id.get(asked, {})
    return [*_strips(filters), *_puts(filters.set_params), *_puts(by_id)]


def rename(model: str) -> Edit:
    """Return the change that puts a model's name into a body."""
    return Put((PROTECTED,), model)


def edited(body: Text, edits: list[Edit]) -> Steps[Text]:
    """Return a body with changes.

    Raises:
        NotJson: the body is not JSON.
    """
    for edit in edits:
        body = yield from edit.applied(body)
    return body


def _strips(filters: Filters) -> Iterator[Edit]:
    listed = filters.strip_params or filters.legacy_strip_params
    for name in listed.split(","):
        if name.strip() and (path := keys_of(name.strip()))[0] != PROTECTED:
            yield Strip(path)


def _puts(params: Mapping[str, Any]) -> Iterator[Edit]:
    for name in sorted(params):
        path = keys_of(name.removesuffix(SOFT))
        if path[0] != PROTECTED:
            yield Put(path, params[name], soft=name.endswith(SOFT))


def keys_of(path: str) -> tuple[str, ...]:
    """Return the keys of a path."""
    return tuple(key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", path))
