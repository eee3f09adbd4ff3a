"""The configuration as a JSON Schema (draft 2020-12), for editors that complete and check.

Owns the way from classes and kinds to a schema. Meanings and defaults are those of the fields. The
schema cannot express rules across the file, such as a name that is given twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from configschema.keys.clients import ApiKey
from configschema.keys.clusters import Where
from configschema.keys.commandline import Command
from configschema.keys.fields import (
    LOG_OUTPUTS,
    WHOLE,
    Duration,
    Expression,
    Gibibytes,
    Gpus,
    LogOutputs,
    MacroValue,
    Pattern,
    Secret,
    fields_of,
    inside,
    types_of,
    without_none,
)
from configschema.keys.schema import Config

IDENTITY = "urn:llamadoze:configuration"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
A_TIME = "expected a time such as 5s or 1m30s"
"""Editors show `errorMessage` and `patternErrorMessage`, which are keywords of VS Code's."""
# A macro may stand for any number or truth value.
A_MACRO = r"\$\{[^}]+\}"
MACRO = {"macro": {"type": "string", "pattern": A_MACRO, "description": "a macro"}}
NUMBER = r"[0-9]+(\.[0-9]*)?|\.[0-9]+"
TEXT: dict[str, Any] = {"type": ["string", "number", "boolean"]}
OUTPUT = f"({'|'.join(LOG_OUTPUTS)})"
SCALARS: dict[Any, dict[str, Any]] = {
    str: TEXT,
    Secret: TEXT,
    Command: TEXT,
    Duration: {
        "type": "string",
        "pattern": rf"^[-+]?(0|(({NUMBER})(ns|us|µs|μs|ms|s|m|h))+)$|{A_MACRO}",
        "errorMessage": A_TIME,
        "patternErrorMessage": A_TIME,
    },
    LogOutputs: {
        "type": "string",
        "pattern": f"^(both|none| *{OUTPUT}( *, *{OUTPUT})* *)$",
        "patternErrorMessage": "expected both, none, or some of proxy, upstream, http with commas",
    },
    Pattern: {"type": "string", "format": "regex"},
    Expression: {"type": "string"},
    Gibibytes: {
        "type": "number",
        "minimum": 0,
        "errorMessage": "expected a number of GiB, such as 22 or 0.5",
    },
    Gpus: {
        "type": ["integer", "string", "array"],
        "minimum": 0,
        "items": {"type": ["integer", "string"]},
    },
    bool: {"type": "boolean", "errorMessage": "expected true or false"},
    MacroValue: TEXT,
    Any: {},
}
WITHOUT_UNIT = ", as a number without a unit"
NEEDED = {"Model": {"cmdSleep": ["cmdWake"], "cmdWake": ["cmdSleep"]}}
"""Keys of a section that need other keys beside them."""
NAMES = "[a-zA-Z0-9_-]{1,63}"


def json_schema(*, strict: bool = False) -> dict[str, Any]:
    """Return the schema of the whole file.

    Args:
        strict: whether unknown keys do not fit. llamadoze only warns about them, because files
            of other programs have them; an editor shows a misspelt key so.
    """
    classes: dict[str, Any] = dict(MACRO)
    top = _section(Config, classes)
    if strict:
        for section in (top, *(one for name, one in classes.items() if name not in MACRO)):
            section["additionalProperties"] = False
        top["patternProperties"] = {"^x-": {}}
    identity = f"{IDENTITY}:strict" if strict else IDENTITY
    head = {"$schema": DRAFT, "$id": identity, "title": "llamadoze configuration"}
    return {**head, **top, "$defs": dict(sorted(classes.items()))}


def _section(cls: type[attrs.AttrsInstance], classes: dict[str, Any]) -> dict[str, Any]:
    types = types_of(cls)
    properties = {
        key: {
            **_or_nothing(_of(types[key], classes)),
            "description": field.metadata["doc"],
            **_default(field),
        }
        for key, field in fields_of(cls).items()
    }
    doc = (cls.__doc__ or "").partition("\n")[0].replace("``", "`")
    needed = {"dependentRequired": NEEDED[cls.__name__]} if cls.__name__ in NEEDED else {}
    return {"type": "object", "description": doc, "properties": properties, **needed}


def _or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow a key without a value, which means its default."""
    if "anyOf" in schema:  # an editor shows the message of a first branch that has all types
        first, *others = schema["anyOf"]
        return {"anyOf": [_or_nothing(first), *others]}
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return {**schema, "type": [*types, "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else {}


def _default(field: attrs.Attribute[Any]) -> dict[str, Any]:
    value = field.default
    if isinstance(value, tuple):
        return {"default": list(value)}
    return {"default": value} if isinstance(value, (bool, int, float, str)) and value != "" else {}


def _of(kind: Any, classes: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 -- any annotation
    kind = without_none(kind)
    if kind in WHOLE:
        return _or_macro(_whole(kind))
    if get_origin(kind) is Literal:
        return _or_macro({"enum": list(get_args(kind))})
    if kind in SCALARS:
        return (
            _or_macro(SCALARS[kind])
            if kind in (bool, LogOutputs, Gibibytes)
            else dict(SCALARS[kind])
        )
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _of(inside(kind), classes)}
    if get_origin(kind) is Mapping:
        return {"type": "object", **_names(inside(kind), classes)}
    if kind.__name__ not in classes:
        classes[kind.__name__] = {}  # known before its own parts refer to it
        classes[kind.__name__] = _section(kind, classes)
    section = {"$ref": f"#/$defs/{kind.__name__}"}
    return {"anyOf": [TEXT, section]} if kind in (ApiKey, Where) else section


def _or_macro(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"$ref": "#/$defs/macro"}]}


def _names(held: Any, classes: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 -- any annotation
    if held is Any:
        return {}
    if held == MacroValue:
        return {"propertyNames": {"pattern": f"^{NAMES}$"}, "additionalProperties": TEXT}
    values = _of(held, classes)
    if without_none(held) is not held:
        values = {"anyOf": [values, {"type": "null"}]}
    return {"additionalProperties": values}


def _whole(kind: Any) -> dict[str, Any]:  # noqa: ANN401 -- a kind of number
    allowed = WHOLE[kind]
    lowest = {} if allowed.lowest is None else {"minimum": allowed.lowest}
    highest = {} if allowed.clamp else {"maximum": allowed.highest}
    message = f"expected {allowed.expected}{WITHOUT_UNIT * ('seconds' in allowed.expected)}"
    return {"type": "integer", **lowest, **highest, "errorMessage": message}
