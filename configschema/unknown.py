"""Keys that mean nothing, sections without content, numbers that are cut.

Owns the walk of raw data along the classes of the schema. None of what it finds refuses a file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from configschema.commandline import Command
from configschema.fields import WHOLE, inside, types_of, without_none
from configschema.problems import Fault, Path
from configschema.schema import Config

ADDRESS = frozenset({"listen", "listenAddr", "listenAddress", "host", "port"})


def remarks(data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is worth a warning in the data of a file, macros expanded."""
    yield from _section(data, Config, ())


def is_known(key: object) -> bool:
    """Whether a key at the top of the file means something."""
    return key in types_of(Config)


def is_section(kind: Any) -> bool:  # noqa: ANN401 -- any annotation
    """Whether a type is a class of the schema."""
    return attrs.has(kind) and kind is not Command


def _section(
    data: Mapping[str, Any], cls: type[attrs.AttrsInstance], path: Path
) -> Iterator[Fault]:
    known = types_of(cls)
    for name, value in data.items():
        if name in known:
            yield from _value(value, without_none(known[name]), (*path, name))
        else:
            yield Fault((*path, name), f"unknown key, ignored{_meant(name, known)}")


def _meant(name: str, known: Mapping[str, Any]) -> str:
    if name in ADDRESS:
        return "; the address to listen on is given with --listen HOST:PORT"
    lowered = {key.lower().replace("_", ""): key for key in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), lowered, n=1, cutoff=0.75)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""


def _value(value: Any, kind: Any, path: Path) -> Iterator[Fault]:  # noqa: ANN401 -- raw YAML
    held = inside(kind)
    if value is None:
        if is_section(kind) or held is not None:
            yield Fault(path, "is empty, which is the same as leaving it out")
    elif is_section(kind):
        if isinstance(value, dict):
            yield from _section(value, kind, path)
    elif held is not None:
        if is_section(held) or held in WHOLE or inside(held) is not None:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for step, item in items if isinstance(value, (dict, list)) else ():
                if item is not None:  # an empty one of many names
                    yield from _value(item, held, (*path, step))
    elif kind in WHOLE and isinstance(value, float) and math.isfinite(value) and value % 1:
        yield Fault(path, f"{{}} counts as {int(value)}: only whole numbers are meant", (value,))
