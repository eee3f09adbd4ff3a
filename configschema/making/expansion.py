"""Macros (``${NAME}``, ``${MODEL_ID}``, ``${PORT}``), and the assignment of ports to models.

Owns the order of expansion, which is llama-swap's: the macro that is declared last comes first,
then MODEL_ID, then PORT. It expands plain data before that is structured, so a macro may stand for
a number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import attrs

from configschema.keys.commandline import without_comments
from configschema.keys.fields import MacroValue, fields_of
from configschema.keys.schema import DEFAULT_PROXY, DEFAULT_START_PORT, ON_NODE, Model
from configschema.making.declarations import BUILT_IN, declared
from configschema.text.problems import Fault, Meant, Path

_USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_LIKE_PORT = re.compile(r"\$\{?\s*port\b(?:[^}\s]*\s*\})?|\{\s*port\s*\}", re.IGNORECASE)
_NO_SPACE = re.compile(r"\w+:\S")
COMMANDS = ("cmd", "cmdStop", "cmdSleep", "cmdWake")
KNOWN_ON_NODES = frozenset({"HOST", "PORT"})  # of a cluster
KNOWS_PID = frozenset({"cmdStop", "cmdSleep", "cmdWake"})
STEPS_WITH_PID = frozenset({"sleepEndpoints", "wakeEndpoints", "verify"})
LAST_PORT = 65535
MOVED_BY = 100  # how far a model may have moved up, because its own port was taken
LONGEST_TEXT = 1_000_000  # characters; a limit for macros that double each other
LONGEST_FILE = 20_000_000  # characters that all macros together may add to a file
TOO_LONG = "\0 too long \0"  # replaces a text that would become longer
TOO_MUCH = (
    f"its macros expand to more than {LONGEST_TEXT} characters, "
    f"or those of the file to more than {LONGEST_FILE}"
)

NO_PORTS: Mapping[str, int] = {}
NOWHERE_YET: Mapping[str, MacroValue] = {}


@attrs.define
class Expansion:
    """The expanded data of a file, its faults, and the ports of its models.

    The data always has mappings under ``models`` and ``macros``, whatever the file has there.
    `broken` are macros that have a fault of their own. `names` has, by path, how the file wrote a
    name with macros. `users` has the first macro that uses another one, and `length` what macros
    have added.
    """

    environment: Mapping[str, str]
    where: Mapping[str, MacroValue] = NOWHERE_YET
    data: dict[str, Any] = attrs.field(factory=dict)
    faults: list[Fault] = attrs.field(factory=list)
    ports: dict[str, int] = attrs.field(factory=dict)
    broken: set[str] = attrs.field(factory=set)
    names: dict[Path, str] = attrs.field(factory=dict)
    users: dict[str, Path] = attrs.field(factory=dict)
    length: int = 0

    def complain(self, path: Path, message: str, *values: object) -> None:
        """Note a fault."""
        self.faults.append(Fault(path, message, values))

    def put(self, value: Any, macros: Mapping[str, MacroValue]) -> Any:  # noqa: ANN401 -- raw YAML
        """Expand macros in every text of a tree, the last declared first. Keys stay unchanged."""
        if isinstance(value, str):
            return self.put_text(value, macros) if "${" in value else value
        if isinstance(value, dict):
            return {key: self.put(item, macros) for key, item in value.items()}
        if isinstance(value, list):
            return [self.put(item, macros) for item in value]
        return value

    def put_text(self, text: str, macros: Mapping[str, MacroValue]) -> MacroValue:
        """Expand macros in one text. A text that is a single macro gets the type of its value."""
        for name in reversed(list(macros)):
            use = f"${{{name}}}"
            if use not in text:
                continue
            value = macros[name]
            if text == use and not isinstance(value, str):
                return value
            grown = text.count(use) * len(_as_text(value))
            self.length += grown
            if len(text) + grown > LONGEST_TEXT or self.length > LONGEST_FILE:
                return TOO_LONG
            text = text.replace(use, _as_text(value))
        return text

    def find_unknown(
        self, value: object, path: Path, known: Iterable[str], later: Collection[str] = ()
    ) -> None:
        """Note each macro that has no value now, and gets none `later`."""
        for place, name in _leftovers(value, path):
            if name == TOO_LONG:
                self.complain(place, TOO_MUCH)
            elif name in later:
                continue
            elif name not in self.broken and not (name == "PID" and _knows_pid(place)):
                self.faults.append(self._unknown(name, place, known))

    def _unknown(self, name: str, path: Path, known: Iterable[str]) -> Fault:
        use = f"${{{name}}}"
        if name in BUILT_IN:
            return Fault(path, f"unknown macro {{}}: {BUILT_IN[name]}", (use,), near=use)
        if name in known:
            late = "it is declared after the macro that uses it; declare it earlier"
            user = self.users.get(use)
            return Fault(path, f"unknown macro {{}}: {late}", (use,), near=use, also=user)
        if name in self.environment:
            instead = (use, f"${{env.{name}}}")
            return Fault(path, "unknown macro {}; did you mean {}?", instead, near=use)
        meant = Meant(name, [*known, "PORT", "MODEL_ID"], "${{}}", otherwise="declare it in macros")
        return Fault(path, "unknown macro {}", (use,), near=use, meant=meant)


def expand(
    raw: Mapping[str, Any],
    environment: Mapping[str, str],
    ports: Mapping[str, int] = NO_PORTS,
    where: Mapping[str, MacroValue] = NOWHERE_YET,
) -> Expansion:
    """Expand every macro of a file, and give each model that uses ``${PORT}`` a port of its own.

    `ports` are the ports that models have already. They keep them, and no other model gets one of
    them. `where` is the address of a model in a cluster, as ``HOST`` and ``PORT``, once it is
    known.
    """
    result = Expansion(environment, where)
    everyones = _declared(raw.get("macros"), ("macros",), result)
    for key, value in raw.items():
        if key not in ("models", "macros"):
            result.data[key] = result.put(value, everyones)
            result.find_unknown(result.data[key], (key,), everyones)
    result.data["macros"] = everyones
    models = raw.get("models") or {}
    if not isinstance(models, dict):
        result.complain(("models",), "expected model names, each with its settings")
        models = {}
    result.data["models"] = _expand_models(models, everyones, result, ports)
    return result


def _expand_models(
    models: Mapping[str, Any],
    everyones: Mapping[str, MacroValue],
    result: Expansion,
    ports: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    port = result.data.get("startPort", DEFAULT_START_PORT)
    number = isinstance(port, (int, float)) and not isinstance(port, bool)
    port = int(port) if number and 0 < port <= LAST_PORT else DEFAULT_START_PORT
    near = range(port, port + len(models) + len(ports) + MOVED_BY)  # else startPort has changed
    kept = {name: number for name, number in ports.items() if number in near}
    taken = frozenset(kept.values())
    free = (number for number in itertools.count(port) if number not in taken)
    port = next(free)
    expanded: dict[str, dict[str, Any]] = {}
    for name in sorted(models):
        body = models[name]
        if body is not None and not isinstance(body, dict):
            result.complain(("models", name), _no_settings(name, body), body)
            body = None
        if body is None:
            expanded[name] = {"proxy": ""}  # as in llama-swap; the model cannot start anyway
            continue
        given = kept.get(name, port)
        expanded[name], uses_port = _expand_model(name, body, everyones, given, result)
        if uses_port and given > LAST_PORT:
            text = f"no port is left for this model: lower startPort, ports end at {LAST_PORT}"
            result.complain(("models", name), text)
        elif uses_port:
            result.ports[name] = given
            port = next(free) if given == port else port
    return {name: expanded[name] for name in models}


def _no_settings(name: str, body: object) -> str:
    """Return the fault of a model without settings, and what was probably meant."""
    message = "expected the model's settings, found {}"
    if name in fields_of(Model):
        return f"{message}; this is a key of a model: indent it below the model's name"
    if isinstance(body, str) and _NO_SPACE.match(body):
        return f"{message}; a key needs a space behind its colon"
    return message


def _expand_model(
    name: str,
    body: Mapping[str, Any],
    everyones: Mapping[str, MacroValue],
    port: int,
    result: Expansion,
) -> tuple[dict[str, Any], bool]:
    """Return the model's expanded data, and whether the model uses the port."""
    path = ("models", name)
    own = _declared(body.get("macros"), (*path, "macros"), result)
    expanded = {
        key: without_comments(value) if key in COMMANDS and isinstance(value, str) else value
        for key, value in body.items()
        if key != "macros"
    }
    macros = {"MODEL_ID": name, **everyones, **own}
    command = str(result.put(expanded.get("cmd"), macros))
    if body.get("in") is not None and result.data.get("clusters"):
        return {**_expand_on_node(expanded, macros, path, result), "macros": own}, False
    uses_port = "${PORT}" in command or command == TOO_LONG  # which may have used it
    if expanded.get("proxy") is None or (uses_port and not expanded["proxy"]):
        expanded["proxy"] = DEFAULT_PROXY
    known = {"PORT": port, **macros} if uses_port else macros
    expanded = result.put(expanded, known)
    _expand_names(expanded, known, path, result)
    meant = set(fields_of(Model))
    if "${PORT}" in str(expanded.get("proxy", "")):
        if _is_begun_elsewhere(expanded):
            meant -= {"proxy"}  # the fault is reported at its own place
        else:
            result.faults.append(_no_port(body, str(expanded.get("cmd", "")), path))
            expanded["proxy"] = ""
    looked_at = {key: item for key, item in expanded.items() if key in meant}
    result.find_unknown(looked_at, path, macros)
    return {**expanded, "macros": own}, uses_port


def _expand_on_node(
    model: Mapping[str, Any], macros: Mapping[str, MacroValue], path: Path, result: Expansion
) -> dict[str, Any]:
    """Return the data of a model in a cluster. Its address is known once its server has landed."""
    macros = {**result.where, **macros}
    expanded = result.put({**model, "proxy": model.get("proxy") or ON_NODE}, macros)
    _expand_names(expanded, macros, path, result)
    looked_at = {key: item for key, item in expanded.items() if key in fields_of(Model)}
    result.find_unknown(looked_at, path, macros, KNOWN_ON_NODES)
    return dict(expanded)


def _is_begun_elsewhere(model: Mapping[str, Any]) -> bool:
    """Whether the port may be in something unknown: an undefined macro, or another key."""
    command = str(model.get("cmd") or "")
    if not command:
        return any("${PORT}" in str(item) for key, item in model.items() if key not in _WITH_PORT)
    unknown = set(_USE.findall(command)) - {"PORT", "PID"}
    return bool(unknown) and not _LIKE_PORT.search(command)


_WITH_PORT = frozenset({"cmd", "proxy", *COMMANDS})


def _no_port(body: Mapping[str, Any], command: str, path: Path) -> Fault:
    """Report that the address needs a port, but the command does not use one."""
    what = "proxy uses ${PORT}, but cmd does not" if body.get("proxy") else "proxy is missing"
    if slip := _LIKE_PORT.search(command):
        message = f"{what}: write ${{PORT}} in place of {{}}"
        return Fault((*path, "proxy"), message, (slip[0],), source=command)
    return Fault((*path, "proxy"), f"{what}: use ${{PORT}} in cmd, or set the server's address")


def _expand_names(
    model: dict[str, Any], macros: Mapping[str, MacroValue], path: Path, result: Expansion
) -> None:
    """Expand the only keys that may have macros in them: the names of ``setParamsByID``."""
    filters = model.get("filters")
    by_id = filters.get("setParamsByID") if isinstance(filters, dict) else None
    if not isinstance(by_id, dict) or not any("${" in name for name in by_id):
        return
    path = (*path, "filters", "setParamsByID")
    found: dict[str, str] = {}
    for name in by_id:
        meant = _as_text(result.put_text(name, macros))
        if meant in found:
            message, other = "expands to {}, as {} does", found[meant]
            fault = Fault((*path, name), message, (meant, other), also=(*path, other))
            result.faults.append(fault)
        found.setdefault(meant, name)
    result.names |= {(*path, meant): name for meant, name in found.items()}
    values = {meant: by_id[name] for meant, name in found.items()}
    model["filters"] = {**model["filters"], "setParamsByID": values}


def _declared(macros: object, path: Path, result: Expansion) -> dict[str, MacroValue]:
    """Return the usable macros. The others become faults."""
    good, faults = declared(macros, path)
    result.faults += faults
    result.broken |= {str(fault.path[-1]) for fault in faults if len(fault.path) > len(path)}
    for name, value in good.items():
        for use in _USE.finditer(value) if isinstance(value, str) else ():
            result.users.setdefault(use[0], (*path, name))
    return good


def _knows_pid(path: Path) -> bool:
    if len(path) < 3 or path[0] != "models":
        return False
    return path[2] in KNOWS_PID or (path[-1] == "cmd" and path[2] in STEPS_WITH_PID)


def _as_text(value: MacroValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leftovers(value: Any, path: Path) -> Iterator[tuple[Path, str]]:  # noqa: ANN401 -- raw YAML
    """Yield the macros that are left in a tree, with their paths."""
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
