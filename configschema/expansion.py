"""Macros: ``${NAME}``, ``${MODEL_ID}``, ``${PORT}``, and the ports that models are given.

Owns the order of expansion, which is llama-swap's: the last declared macro first, then MODEL_ID,
then PORT. Works on plain data before it is structured, so a macro may stand for a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from configschema.commandline import without_comments
from configschema.fields import MacroValue
from configschema.problems import Fault, Path
from configschema.schema import DEFAULT_PROXY, DEFAULT_START_PORT

_USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,63}")
COMMANDS = ("cmd", "cmdStop", "cmdSleep", "cmdWake")
NOT_HERE = {
    "PORT": "a model has a port if its cmd uses ${PORT}",
    "MODEL_ID": "there is one in models only",
    "PID": "there is one in cmdStop, cmdSleep and cmdWake only",
}
KNOWS_PID = frozenset({"cmdStop", "cmdSleep", "cmdWake"})
LAST_PORT = 65535
LONGEST_TEXT = 1_000_000  # characters; bounds macros that double each other
TOO_LONG = "\0 too long \0"  # stands for a text that would be longer


@attrs.define
class Expansion:
    """The expanded data of a file, the faults met on the way, and the ports given to models.

    The data has names with settings under ``models`` and ``macros``, whatever the file has there.
    """

    environment: Mapping[str, str]
    data: dict[str, Any] = attrs.field(factory=dict)
    faults: list[Fault] = attrs.field(factory=list)
    ports: dict[str, int] = attrs.field(factory=dict)

    def complain(self, path: Path, message: str, *values: object) -> None:
        """Note a fault."""
        self.faults.append(Fault(path, message, values))

    def find_unknown(self, value: object, path: Path, known: Iterable[str]) -> None:
        """Note each macro that nothing was put in for."""
        for place, name in _leftovers(value, path):
            if name == TOO_LONG:
                self.complain(place, f"its macros expand to more than {LONGEST_TEXT} characters")
            elif not (name == "PID" and place[-1] in KNOWS_PID):
                use, (meant, values) = f"${{{name}}}", self._hint(name, known)
                message = f"unknown macro {{}}{meant}"
                self.faults.append(Fault(place, message, (use, *values), near=use))

    def _hint(self, name: str, known: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        if name in NOT_HERE:
            return f": {NOT_HERE[name]}", ()
        if name in known:
            return ": it is declared after the macro that uses it; declare it before", ()
        if name in self.environment:
            return "; did you mean {}?", (f"${{env.{name}}}",)
        near = difflib.get_close_matches(name, known, n=1)
        return ("; did you mean {}?", (f"${{{near[0]}}}",)) if near else ("", ())


def expand(raw: Mapping[str, Any], environment: Mapping[str, str]) -> Expansion:
    """Expand every macro of a file and give each model that uses ``${PORT}`` a port of its own."""
    result = Expansion(environment)
    everyones = _declared(raw.get("macros"), ("macros",), result)
    for key, value in raw.items():
        if key not in ("models", "macros"):
            result.data[key] = _put(value, everyones)
            result.find_unknown(result.data[key], (key,), everyones)
    result.data["macros"] = everyones
    models = raw.get("models") or {}
    if not isinstance(models, dict):
        result.complain(("models",), "expected model names, each with its settings")
        models = {}
    result.data["models"] = _expand_models(models, everyones, result)
    return result


def _expand_models(
    models: Mapping[str, Any], everyones: Mapping[str, MacroValue], result: Expansion
) -> dict[str, dict[str, Any]]:
    port = result.data.get("startPort", DEFAULT_START_PORT)
    port = port if isinstance(port, int) and 0 < port <= LAST_PORT else DEFAULT_START_PORT
    expanded: dict[str, dict[str, Any]] = {}
    for name in sorted(models):
        body = models[name] or {}
        if not isinstance(body, dict):
            result.complain(("models", name), "expected the model's settings")
            body = {}
        expanded[name], uses_port = _expand_model(name, body, everyones, port, result)
        if uses_port and port > LAST_PORT:
            text = f"no port is left for it: startPort is too near to {LAST_PORT}"
            result.complain(("models", name), text)
        elif uses_port:
            result.ports[name] = port
            port += 1
    return {name: expanded[name] for name in models}


def _expand_model(
    name: str,
    body: Mapping[str, Any],
    everyones: Mapping[str, MacroValue],
    port: int,
    result: Expansion,
) -> tuple[dict[str, Any], bool]:
    """Return the model's expanded data, and whether it took the port."""
    path = ("models", name)
    own = _declared(body.get("macros"), (*path, "macros"), result)
    expanded = {key: value for key, value in body.items() if key != "macros"}
    for key in COMMANDS:
        if isinstance(expanded.get(key), str):
            expanded[key] = without_comments(expanded[key])
    macros = {"MODEL_ID": name, **everyones, **own}
    uses_port = "${PORT}" in str(_put(expanded.get("cmd"), macros))
    if body and (expanded.get("proxy") is None or (uses_port and not expanded["proxy"])):
        expanded["proxy"] = DEFAULT_PROXY
    known = {"PORT": port, **macros} if uses_port else macros
    expanded = _put(expanded, known)
    _expand_names(expanded, known, path, result)
    if "${PORT}" in str(expanded.get("proxy", "")):
        what = "proxy uses ${PORT} but cmd does not" if body.get("proxy") else "proxy is missing"
        result.complain((*path, "proxy"), f"{what}: use ${{PORT}} in cmd, or name the address")
        expanded["proxy"] = ""
    result.find_unknown(expanded, path, macros)
    return {**expanded, "macros": own}, uses_port


def _expand_names(
    model: dict[str, Any], macros: Mapping[str, MacroValue], path: Path, result: Expansion
) -> None:
    """Expand the one place where keys may hold macros: the names of ``setParamsByID``."""
    filters = model.get("filters")
    by_id = filters.get("setParamsByID") if isinstance(filters, dict) else None
    if not isinstance(by_id, dict) or not any("${" in name for name in by_id):
        return
    path = (*path, "filters", "setParamsByID")
    found: dict[str, str] = {}
    for name in by_id:
        meant = _as_text(_put_text(name, macros))
        if meant in found:
            message, other = "means {}, and so does {}", found[meant]
            fault = Fault((*path, name), message, (meant, other), also=(*path, other))
            result.faults.append(fault)
        found.setdefault(meant, name)
    values = {meant: by_id[name] for meant, name in found.items()}
    model["filters"] = {**model["filters"], "setParamsByID": values}


def _declared(macros: Any, path: Path, result: Expansion) -> dict[str, MacroValue]:  # noqa: ANN401 -- raw YAML
    """Return the macros that may be used; the others become faults."""
    if macros is None:
        return {}
    if not isinstance(macros, dict):
        result.complain(path, "expected names with values")
        return {}
    good: dict[str, MacroValue] = {}
    for name, value in macros.items():
        if reason := _unusable(name, value):
            result.complain((*path, name), reason, *([name] if "{}" in reason else []))
        else:
            good[name] = value
    return good


def _unusable(name: str, value: object) -> str | None:
    if name in NOT_HERE:
        return "macro name {} is reserved"
    if not _NAME.fullmatch(name):
        return "a macro name is 1 to 63 letters, digits, '_' or '-'"
    if not isinstance(value, MacroValue):
        return "a macro's value is a text, a number, or true or false"
    if isinstance(value, str) and f"${{{name}}}" in value:
        return "macro {} contains itself"
    return None


def _put(value: Any, macros: Mapping[str, MacroValue]) -> Any:  # noqa: ANN401 -- raw YAML
    """Expand macros in every text of a tree, the last declared first; keys stay as they are."""
    if isinstance(value, str):
        return _put_text(value, macros) if "${" in value else value
    if isinstance(value, dict):
        return {key: _put(item, macros) for key, item in value.items()}
    if isinstance(value, list):
        return [_put(item, macros) for item in value]
    return value


def _put_text(text: str, macros: Mapping[str, MacroValue]) -> MacroValue:
    for name in reversed(list(macros)):
        use = f"${{{name}}}"
        if use not in text:
            continue
        value = macros[name]
        if text == use and not isinstance(value, str):
            return value
        if len(text) + text.count(use) * len(_as_text(value)) > LONGEST_TEXT:
            return TOO_LONG
        text = text.replace(use, _as_text(value))
    return text


def _as_text(value: MacroValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leftovers(value: Any, path: Path) -> Iterator[tuple[Path, str]]:  # noqa: ANN401 -- raw YAML
    """Yield the macros still in a tree, with their paths."""
    if isinstance(value, str):
        if value == TOO_LONG:
            yield path, TOO_LONG
        elif "${" in value:
            yield from ((path, name) for name in dict.fromkeys(_USE.findall(value)))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leftovers(item, (*path, key))
            if "${" in key and path[2:] == ("filters", "setParamsByID"):
                yield from (((*path, key), name) for name in _USE.findall(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leftovers(item, (*path, index))
