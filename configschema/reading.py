"""From files to a checked configuration, or to the list of all their problems.

Owns the order of the steps, and which files belong together. Each step collects its faults. If
there are any, the files are refused once, at the end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs
import yaml

from configschema.advice.general import advise
from configschema.advice.machine import advise_on_machine
from configschema.keys.schema import Config
from configschema.making.expansion import NO_PORTS, Expansion, expand
from configschema.making.landings import with_landings
from configschema.making.otherports import with_choice_of_ports
from configschema.making.sharedports import without_sleep_on_shared_ports
from configschema.making.structuring import structure
from configschema.rules.checks import check
from configschema.rules.hiding import secrets_among
from configschema.rules.showing import shown_texts, with_shown
from configschema.rules.unknown import is_top_key, remarks, secrets_in
from configschema.text.content import content_of
from configschema.text.environment import MARK, Environment
from configschema.text.merging import merge
from configschema.text.nodes import Mapping as MappingNode
from configschema.text.nodes import Node, Scalar, holds_shared, read_nodes
from configschema.text.places import Source, place_of
from configschema.text.problems import HIDDEN, ConfigError, Fault, Problem, Report
from configschema.text.values import Reader
from configschema.text.words import WORDS

NOTHING = "nothing is served: there is no model below models:"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The usual causes of the parser's messages.
REMEDIES = {
    "cannot start any token": "; indent with spaces, not tabs, and quote what begins with @ or `",
    "mapping values are not allowed": "; check the indentation, or quote a value with ': ' in it",
    "did not find expected key": "; check the indentation, and the quotes and brackets before it",
    "could not find expected ':'": "; check the indentation, and look for a missing colon",
    "unexpected end of stream": "; a quote is not closed",
}


@attrs.frozen
class Here:
    """The place where a configuration will be served: this machine.

    Attributes:
        port: the port that the daemon listens on.
    """

    port: int | None = None


@attrs.frozen
class Loaded:
    """A usable configuration and its warnings.

    Attributes:
        config: the configuration.
        warnings: probable mistakes.
        texts: returns the files without secrets.
    """

    config: Config
    warnings: tuple[Problem, ...]
    texts: Callable[[], Mapping[str, str]] = dict


def load(
    *paths: str | Path,
    environ: Mapping[str, str] = os.environ,
    ports: Mapping[str, int] = NO_PORTS,
    place: Here | None = None,
) -> Loaded:
    """Read one file, or several that make up one configuration.

    Args:
        paths: the files.
        environ: the variables for ``${env.NAME}``.
        ports: the ports that models have already, and keep.
        place: where the configuration will be served; None skips the checks of the machine.

    Raises:
        ConfigError: the files have problems; the error lists them all.
        OSError: a file cannot be read.
    """
    contents = {str(path): content_of(Path(path)) for path in paths}
    return _parse(contents, environ, ports, place)


def parse(text: str, file: str = "config", environ: Mapping[str, str] = os.environ) -> Loaded:
    """Check a text. Problems name it `file`.

    Raises:
        ConfigError: the text has problems; the error lists them all.
    """
    return _parse({file: text.encode(errors="surrogatepass")}, environ)


def files_in(folder: str | Path) -> list[Path]:
    """Return the YAML files of a folder, sorted by name. Folders in it are not searched.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(
        file
        for file in Path(folder).iterdir()
        if file.suffix in (".yaml", ".yml") and not file.is_dir()
    )


def _parse(
    contents: Mapping[str, bytes],
    environ: Mapping[str, str],
    ports: Mapping[str, int] = NO_PORTS,
    place: Here | None = None,
) -> Loaded:
    texts: dict[str, str] = {}
    roots: list[Node] = []
    problems: list[Problem] = []
    for file, content in contents.items():
        try:
            texts[file] = _decoded(content, file)
            root = _nodes(texts[file], file)
        except ConfigError as error:
            problems += error.problems
        else:
            roots += [root] if root else []
    if problems:
        raise ConfigError(problems)
    return _check(roots, texts, environ, ports, place)


def _decoded(data: bytes, file: str) -> str:
    if (
        b"\0" in data[:2] and data[:2] != b"\0\0"
    ):  # UTF-16 without a byte order mark: the first letter takes two bytes
        raise ConfigError([Problem(file, 1, 1, "", "not UTF-8 text, but UTF-16: save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        is_utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        what = "not UTF-8 text, but UTF-16" if is_utf_16 else "not UTF-8 text"
        raise ConfigError([Problem(file, line, 1, "", f"{what}: save it as UTF-8")]) from None


def _nodes(text: str, file: str) -> Node | None:
    """Return the tree of a file, or None if the file is empty."""
    try:
        root = read_nodes(text, file)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_unreadable(error, file)]) from None
    except yaml.YAMLError:
        raise ConfigError([_unprintable(text, file)]) from None
    if root is None or isinstance(root, MappingNode):
        return root
    if isinstance(root, Scalar) and root.plain and WORDS.get(root.text, "") is None:
        return None
    place = place_of(root.mark)
    raise ConfigError(
        [Problem(file, place.line, place.column, "", "expected keys with values, such as models:")]
    )


def _unreadable(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = f"not valid YAML: {error.problem or error.context}"
    begun = error.context_mark
    if error.problem and begun and begun.line + 1 != line:
        what += f" ({error.context}, from line {begun.line + 1} on)"
    way = next((way for text, way in REMEDIES.items() if text in what), "")
    return Problem(file, line, column, "", what + way)


def _unprintable(text: str, file: str) -> Problem:
    """Describe a character that YAML does not allow (YAML 1.2, 5.1)."""
    found = _FORBIDDEN.search(text)
    at = found.start() if found else 0
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    what = f"YAML does not allow the character {ord(found[0]):#06x}" if found else "malformed"
    return Problem(file, line, column, "", f"not valid YAML: {what}")


def _check(
    roots: list[Node],
    texts: Mapping[str, str],
    environ: Mapping[str, str],
    ports: Mapping[str, int],
    here: Here | None,
) -> Loaded:
    environment = Environment(environ)
    root, faults = merge(roots, environment)
    public = _spelled_out(root)
    reader = Reader(environment)
    data = reader.data(root) if root else {}
    expansion = expand(data, environ, ports)
    config, wrong = structure(expansion.data, expansion.ports)
    known = [fault for fault in expansion.faults if is_top_key(fault.path[0])]
    faults += [*reader.faults, *known]
    for found in (wrong, check(config, expansion.data)):
        faults += _others(found, faults)
    report = Report(
        find=Source(root, texts).find,
        secrets={
            **dict.fromkeys(secrets_among([expansion.data, data]), HIDDEN),
            **dict.fromkeys(secrets_in(expansion.data), HIDDEN),
            **environment.used,
        },
        written=environment.written,
        names=expansion.names,
        public=public,
        files=tuple(texts),
    )
    holders = _holders(root) if isinstance(root, MappingNode) else frozenset()
    warnings = report(
        fault
        for fault in _others(_warnings(config, expansion, data, environ, here), faults)
        if fault.path != fault.path[:1] or fault.path[0] not in holders
    )
    show = partial(shown_texts, texts, data, report)
    if faults:
        raise ConfigError(report(faults), warnings, show)
    if here and not (config.models or config.peers):
        nothing = Problem(next(iter(texts), ""), 1, 1, "", f"{NOTHING}{_misplaced(data)}")
        raise ConfigError([nothing], warnings)
    shown = with_shown(without_sleep_on_shared_ports(config), report)
    movable = with_landings(with_choice_of_ports(shown, data, environ), data, environ)
    return Loaded(movable, warnings, show)


def _holders(root: MappingNode) -> frozenset[str]:
    """Return the unknown top-level keys whose only purpose is to have values for aliases."""
    return frozenset(
        key.text
        for key, value in root.pairs
        if isinstance(key, Scalar)
        and not is_top_key(key.text)
        and (key.text.startswith("x-") or holds_shared(value))
    )


def _spelled_out(root: Node | None) -> frozenset[str]:
    """Return the model ids that the file spells out, without values of the environment."""
    top = root.pairs if isinstance(root, MappingNode) else []
    models = (node for key, node in top if isinstance(key, Scalar) and key.text == "models")
    return frozenset(
        key.text
        for node in models
        for key, _ in (node.pairs if isinstance(node, MappingNode) else ())
        if isinstance(key, Scalar) and MARK not in key.text
    )


def _others(found: Iterable[Fault], refused: Iterable[Fault]) -> list[Fault]:
    """Leave out faults at or below a path that is refused already: they follow from that one."""
    # A key that is given twice has a place of its own; its first value is still checked.
    paths = {fault.path for fault in refused if fault.place is None}
    return [
        fault
        for fault in found
        if not any(fault.path[:length] in paths for length in range(1, len(fault.path) + 1))
    ]


def _misplaced(data: Mapping[str, object]) -> str:
    """Return a hint if a model is at the wrong level of the file."""
    for name, body in data.items():
        if not is_top_key(name) and isinstance(body, dict):
            if "cmd" in body or "proxy" in body:
                return f"; '{name}' is at the left edge: indent it below models:"
            if any(isinstance(inner, dict) and "cmd" in inner for inner in body.values()):
                return f"; write models: for '{name}:'"
    return ""


def _warnings(
    config: Config,
    expansion: Expansion,
    data: Mapping[str, object],
    environ: Mapping[str, str],
    here: Here | None,
) -> Iterable[Fault]:
    # Macros are the operator's own names, and were taken out of the models.
    macros = {"macros": data["macros"]} if "macros" in data else {}
    yield from remarks({**expansion.data, "macros": {}, **macros})
    yield from advise(config, expansion.data)
    if here:
        yield from advise_on_machine(config, environ, here.port)
