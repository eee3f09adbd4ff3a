"""Macros as a file declares them: which names and values are allowed.

Owns the reserved names. `expansion` decides what a macro stands for, and where.
"""

from __future__ import annotations

import re

from configschema.keys.fields import MacroValue
from configschema.text.problems import Fault, Path

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,63}")
BUILT_IN = {
    "PORT": "a model has a port if its cmd uses ${PORT}",
    "MODEL_ID": "it exists inside models only",
    "PID": "it exists in cmdStop, cmdSleep, cmdWake and the cmd of a step only",
}


def declared(macros: object, path: Path) -> tuple[dict[str, MacroValue], list[Fault]]:
    """Return the usable macros, and the faults of the others."""
    if macros is None:
        return {}, []
    if not isinstance(macros, dict):
        return {}, [Fault(path, "expected names with values")]
    good: dict[str, MacroValue] = {}
    faults: list[Fault] = []
    for name, value in macros.items():
        if reason := _unusable(name, value):
            faults.append(Fault((*path, name), reason, (name,) * ("{}" in reason)))
        else:
            good[name] = value
    return good, faults


def _unusable(name: str, value: object) -> str | None:
    if name in BUILT_IN:
        return "the macro name {} is reserved: choose another"
    if not _NAME.fullmatch(name):
        return "a macro name is 1 to 63 letters, digits, '_' or '-'"
    if not isinstance(value, MacroValue):
        return "a macro's value must be a text, a number, or true or false"
    if isinstance(value, str) and f"${{{name}}}" in value:
        return "the macro {} contains itself"
    return None
