"""Macros: ``${NAME}``, ``${MODEL_ID}``, ``${PORT}``, and the ports that models are given.

Owns the order of expansion, which is llama-swap's: the last declared macro first, then MODEL_ID,
then PORT. Works on plain data before it is structured, so a macro may stand for a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from configschema.commandline import without_comments
from configschema.problems import Fault, Path
from configschema.schema import DEFAULT_PROXY, DEFAULT_START_PORT, MacroValue

_USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,63}$")
RESERVED = frozenset({"PORT", "MODEL_ID", "PID"})
COMMANDS = ("cmd", "cmdStop", "cmdSleep", "cmdWake")
KNOWS_PID = frozenset({"cmdStop", "cmdSleep", "cmdWake"})
LAST_PORT = 65535
LONGEST_TEXT = 1_000_000  # characters; bounds macros that double each other
TOO_LONG = "\0 too long \0"  # stands for a text that would be longer


@attrs.define
class Expansion:
    """The expanded data of a file, the faults met on the way, and the ports given to models."""

    data: dict[str, Any]
    faults: list[Fault] = attrs.field(factory=list)
    ports: dict[str, int] = attrs.field(factory=dict)


def expand(raw: Mapping[str, Any]) -> Expansion:
    """Expand every macro of a file and give each model that uses ``${PORT}`` a port of its own."""
    result = Expansion({})
    everyones = _declared(raw.get("macros"), ("macros",), result.faults)
    for key, value in raw.items():
        if key not in ("models", "macros"):
            result.data[key] = _put(value, everyones)
            result.faults.extend(_leftovers(result.data[key], (key,)))
    result.data["macros"] = everyones
    models = raw.get("models")
    result.data["models"] = models
    if isinstance(models, dict):
        _expand_models(models, everyones, result)
    return result


def _expand_models(
    models: Mapping[Any, Any], everyones: Mapping[str, MacroValue], result: Expansion
) -> None:
    port = result.data.get("startPort", DEFAULT_START_PORT)
    port = port if type(port) is int and 0 < port <= LAST_PORT else DEFAULT_START_PORT
    expanded: dict[str, Any] = {}
    for key in sorted(models, key=str):
        name, body = str(key), models[key]
        if isinstance(body, dict):
            body, uses_port = _expand_model(name, body, everyones, port, result.faults)
            if uses_port and port > LAST_PORT:
                text = f"no port is left for it: startPort is too near to {LAST_PORT}"
                result.faults.append(Fault(("models", name), text))
            elif uses_port:
                result.ports[name] = port
                port += 1
        expanded[name] = body
    result.data["models"] = {str(key): expanded[str(key)] for key in models}


def _expand_model(
    name: str,
    body: Mapping[str, Any],
    everyones: Mapping[str, MacroValue],
    port: int,
    faults: list[Fault],
) -> tuple[dict[str, Any], bool]:
    """Return the model's expanded data, and whether it took the port."""
    path = ("models", name)
    own = _declared(body.get("macros"), (*path, "macros"), faults)
    expanded = {key: value for key, value in body.items() if key != "macros"}
    for key in COMMANDS:
        if isinstance(expanded.get(key), str):
            expanded[key] = without_comments(expanded[key])
    if expanded.get("proxy") in (None, ""):
        expanded["proxy"] = DEFAULT_PROXY
    expanded = _put(expanded, {"MODEL_ID": name, **everyones, **own})
    uses_port = "${PORT}" in str(expanded.get("cmd", ""))
    if not uses_port and "${PORT}" in str(expanded["proxy"]):
        what = "proxy uses ${PORT} but cmd does not" if body.get("proxy") else "proxy is missing"
        faults.append(Fault((*path, "proxy"), f"{what}: use ${{PORT}} in cmd, or name the address"))
    expanded = _put(expanded, {"PORT": port})
    faults.extend(_leftovers(expanded, path))
    return {**expanded, "macros": own}, uses_port


def _declared(macros: Any, path: Path, faults: list[Fault]) -> dict[str, MacroValue]:  # noqa: ANN401 -- raw YAML
    """Return the macros that may be used; the others become faults."""
    if macros is None:
        return {}
    if not isinstance(macros, dict):
        faults.append(Fault(path, "expected names with values"))
        return {}
    good: dict[str, MacroValue] = {}
    for key, value in macros.items():
        name = str(key)
        if reason := _unusable(name, value):
            faults.append(Fault((*path, name), reason))
        else:
            good[name] = value
    return good


def _unusable(name: str, value: object) -> str | None:
    if name in RESERVED:
        return f"macro name '{name}' is reserved"
    if not _NAME.match(name):
        return "a macro name is 1 to 63 letters, digits, '_' or '-'"
    if not isinstance(value, MacroValue):
        return "a macro's value is a text, a number, or true or false"
    if isinstance(value, str) and f"${{{name}}}" in value:
        return f"macro '{name}' contains itself"
    return None


def _put(value: Any, macros: Mapping[str, MacroValue]) -> Any:  # noqa: ANN401 -- raw YAML
    """Expand macros in every text of a tree, the last declared first; keys stay as they are."""
    match value:
        case str():
            return _put_text(value, macros)
        case dict():
            return {key: _put(item, macros) for key, item in value.items()}
        case list():
            return [_put(item, macros) for item in value]
        case _:
            return value


def _put_text(text: str, macros: Mapping[str, MacroValue]) -> MacroValue:
    for name in reversed(list(macros)):
        value, use = macros[name], f"${{{name}}}"
        if text == use and not isinstance(value, str):
            return value
        if len(text) + text.count(use) * len(_as_text(value)) > LONGEST_TEXT:
            return TOO_LONG
        text = text.replace(use, _as_text(value))
    return text


def _as_text(value: MacroValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leftovers(value: Any, path: Path) -> Iterator[Fault]:  # noqa: ANN401 -- raw YAML
    match value:
        case str():
            if value == TOO_LONG:
                yield Fault(path, f"its macros expand to more than {LONGEST_TEXT} characters")
            for name in dict.fromkeys(_USE.findall(value)):
                if not (name == "PID" and path[-1] in KNOWS_PID):
                    yield Fault(path, f"unknown macro '${{{name}}}'")
        case dict():
            for key, item in value.items():
                yield from _leftovers(item, (*path, str(key)))
        case list():
            for index, item in enumerate(value):
                yield from _leftovers(item, (*path, index))
        case _:
            pass
