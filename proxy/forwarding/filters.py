"""What is changed in a request's JSON body on its way to a model. Pure functions.

Owns the order (stripParams, setParams, setParamsByID) and the paths, which are llama-swap's: keys
and numbers with dots between them, a backslash before a dot that belongs to a key.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from configschema import Filters

PROTECTED = "model"  # it says who answers; useModelName is for that
MOST_ADDED = 1000  # entries that a path may add to a list


def apply_filters(data: dict[str, Any], filters: Filters, asked: str) -> bool:
    """Change a request's body; return whether anything was changed.

    Args:
        data: the body.
        filters: of the model, or the peer.
        asked: the name that was asked for.
    """
    if not needs_body(filters):
        return False
    stripped = [_delete(data, keys_of(path)) for path in _names(filters)]
    by_id = filters.set_params_by_id.get(asked, {})
    for params in (filters.set_params, by_id):
        _set_all(data, params)
    return any(stripped) or bool(filters.set_params or by_id)


def needs_body(filters: Filters) -> bool:
    """Whether the filters change anything in any request."""
    return bool(
        filters.strip_params
        or filters.legacy_strip_params
        or filters.set_params
        or filters.set_params_by_id
    )


def _names(filters: Filters) -> Iterable[str]:
    listed = filters.strip_params or filters.legacy_strip_params
    names = (name.strip() for name in listed.split(","))
    return (name for name in names if name and keys_of(name)[0] != PROTECTED)


def _set_all(data: dict[str, Any], params: Mapping[str, Any]) -> None:
    for path in sorted(params):
        keys = keys_of(path)
        if keys[0] != PROTECTED:
            _set(data, keys, copy.deepcopy(params[path]))


def keys_of(path: str) -> list[str]:
    """Return the keys that a path is made of."""
    return [key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", path)]


def _delete(data: Any, keys: list[str]) -> bool:  # noqa: ANN401 -- JSON
    """Remove what a path leads to; return whether it was there."""
    for key in keys[:-1]:
        data = _child(data, key)
    last = keys[-1]
    if isinstance(data, dict) and last in data:
        del data[last]
        return True
    if isinstance(data, list) and last.isdecimal() and int(last) < len(data):
        del data[int(last)]
        return True
    return False


def _child(data: Any, key: str) -> Any:  # noqa: ANN401 -- JSON
    if isinstance(data, dict):
        return data.get(key)
    if isinstance(data, list) and key.isdecimal() and int(key) < len(data):
        return data[int(key)]
    return None


def _set(data: Any, keys: list[str], value: object) -> None:  # noqa: ANN401 -- JSON
    for key, following in pairwise(keys):
        child = _child(data, key)
        if not isinstance(child, dict | list):
            child = [] if following.isdecimal() or following == "-1" else {}
            _put(data, key, child)
        data = child
    _put(data, keys[-1], value)


def _put(data: Any, key: str, value: object) -> None:  # noqa: ANN401 -- JSON
    if isinstance(data, dict):
        data[key] = value
    elif isinstance(data, list) and key == "-1":
        data.append(value)
    elif isinstance(data, list) and key.isdecimal() and int(key) < len(data) + MOST_ADDED:
        data.extend([None] * (int(key) + 1 - len(data)))
        data[int(key)] = value
