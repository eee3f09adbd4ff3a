"""Unknown keys, with the key that was probably meant; and where in the file the secrets are.

Owns the walk of the raw data along the schema's classes. Nothing here refuses a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from configschema.keys.clients import ApiKey
from configschema.keys.fields import (
    WHOLE,
    holds_secrets,
    inside,
    is_section,
    types_of,
    without_none,
)
from configschema.keys.schema import Config, Model
from configschema.text.problems import Fault, Meant, Path

SLIPS = {"command": "cmd", "exec": "cmd", "run": "cmd", "environment": "env", "alias": "aliases"}
"""What other programs call keys of a model."""
ADDRESS = frozenset({"listen", "listenAddr", "listenAddress", "host", "port"})


def remarks(data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the warnings about the data of a file, with macros expanded."""
    yield from _section(data, Config, ())


def is_top_key(key: object) -> bool:
    """Whether a key is known at the top of the file."""
    return key in types_of(Config)


def secrets_in(value: Any, kind: Any = Config) -> Iterator[str]:  # noqa: ANN401 -- raw YAML
    """Yield the values of a file whose key makes them secret, in whatever shape."""
    kind = without_none(kind)
    if not holds_secrets(kind) or value is None:
        return
    held = inside(kind)
    if kind is ApiKey and not isinstance(value, dict):
        yield from _texts_in(value)
    elif is_section(kind):
        for name, inner in types_of(kind).items() if isinstance(value, dict) else ():
            yield from secrets_in(value.get(name), inner)
    elif is_section(held) and isinstance(value, (dict, list)):
        for _, item in _items(value):
            yield from secrets_in(item, held)
    else:
        yield from _texts_in(value)


def _texts_in(value: Any) -> Iterator[str]:  # noqa: ANN401 -- raw YAML
    """Yield all words in a value, even if its shape is wrong."""
    if isinstance(value, (dict, list)):
        for _, item in _items(value):
            yield from _texts_in(item)
    elif value is not None:
        yield str(value).lower() if isinstance(value, bool) else str(value)


def _section(
    data: Mapping[str, Any], cls: type[attrs.AttrsInstance], path: Path
) -> Iterator[Fault]:
    known = types_of(cls)
    for name, value in data.items():
        if name in known:
            yield from _value(value, without_none(known[name]), (*path, name))
        else:
            yield _unknown(name, known, path)


def _unknown(name: str, known: Mapping[str, Any], path: Path) -> Fault:
    if name in ADDRESS and not path:
        instead = "; set the address to listen on with --listen HOST:PORT"
        return Fault((*path, name), f"unknown key, ignored{instead}")
    if name in ADDRESS and path[0] == "models" and len(path) == 2:
        instead = "; set the server's address with proxy, and use ${PORT} in cmd"
        return Fault((*path, name), f"unknown key, ignored{instead}")
    if path[:1] == ("models",) and len(path) == 2 and name in SLIPS:
        return Fault((*path, name), f"unknown key, ignored; did you mean {SLIPS[name]}?")
    if not path and name in types_of(Model):
        return Fault(
            (name,), "unknown key, ignored; it is a key of a model: move it below a model's name"
        )
    if path[:1] == ("models",) and len(path) == 2 and name in types_of(Config):
        return Fault((*path, name), "unknown key, ignored; move it to the top of the file")
    return Fault((*path, name), "unknown key, ignored", meant=Meant(name, known, likeness=0.8))


def _value(value: Any, kind: Any, path: Path) -> Iterator[Fault]:  # noqa: ANN401 -- raw YAML
    held = inside(kind)
    if value is None:
        if is_section(kind) or held is not None:
            yield Fault(path, "has no value, so it is ignored")
    elif is_section(kind):
        if isinstance(value, dict):
            yield from _section(value, kind, path)
    elif held is not None:
        if is_section(held) or held in WHOLE or inside(held) is not None:
            for step, item in _items(value):
                if item is not None:  # empty items are no mistake
                    yield from _value(item, held, (*path, step))
    elif kind in WHOLE and isinstance(value, float) and math.isfinite(value) and value % 1:
        yield Fault(path, "expected a whole number: the fraction of {} is ignored", (value,))


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:  # noqa: ANN401 -- raw YAML
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()
