"""From files to a checked configuration, or to the list of everything wrong with them.

Owns the order of the steps, and which files there are. Each step collects its faults; the files are
refused once, at the end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import yaml

from configschema.advice import advise
from configschema.checks import check
from configschema.environment import Environment
from configschema.expansion import Expansion, expand
from configschema.merging import merge
from configschema.nodes import Mapping as MappingNode
from configschema.nodes import Node, Scalar, holds_shared, read_nodes
from configschema.places import Source
from configschema.problems import HIDDEN, ConfigError, Fault, Problem, Report
from configschema.schema import Config
from configschema.structuring import structure
from configschema.unknown import is_known, remarks
from configschema.values import Reader

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@attrs.frozen
class Loaded:
    """A usable configuration and what its author should know."""

    config: Config
    warnings: tuple[Problem, ...]


def load(*paths: str | Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read one file, or several that together are one configuration.

    Raises:
        ConfigError: with every problem of the files.
        OSError: a file cannot be read.
    """
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    for path in map(Path, paths):
        try:
            texts[str(path)] = _decoded(path.read_bytes(), str(path))
        except ConfigError as error:
            problems += error.problems
    return _parse(texts, problems, environ)


def parse(text: str, file: str = "config", environ: Mapping[str, str] = os.environ) -> Loaded:
    """Check a text; `file` names it in problems.

    Raises:
        ConfigError: with every problem of the text.
    """
    return _parse({file: text}, [], environ)


def files_in(folder: str | Path) -> list[Path]:
    """Return the YAML files of a folder by name, without what is in its folders.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(
        file
        for file in Path(folder).iterdir()
        if file.suffix in (".yaml", ".yml") and not file.is_dir()
    )


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, 1, "", "not UTF-8 text")]) from None


def _parse(texts: Mapping[str, str], problems: list[Problem], environ: Mapping[str, str]) -> Loaded:
    """Check texts by file; `problems` are those of files that could not be read so far."""
    roots: list[Node] = []
    for file, text in texts.items():
        try:
            root = _nodes(text, file)
        except ConfigError as error:
            problems += error.problems
        else:
            roots += [root] if root else []
    if problems:
        raise ConfigError(problems)
    return _check(roots, texts, environ)


def _nodes(text: str, file: str) -> Node | None:
    try:
        root = read_nodes(text, file)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_unreadable(error, file)]) from None
    except yaml.YAMLError:
        raise ConfigError([_unprintable(text, file)]) from None
    if root is None or isinstance(root, MappingNode) or Reader(Environment({})).data(root) is None:
        return root if isinstance(root, MappingNode) else None
    mark = root.mark
    raise ConfigError(
        [Problem(file, mark.line + 1, mark.column + 1, "", "expected keys with values")]
    )


def _unreadable(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = f"not valid YAML: {error.problem or error.context}"
    return Problem(file, line, column, "", what)


def _unprintable(text: str, file: str) -> Problem:
    """Describe a character that may not be in YAML (YAML 1.2, 5.1)."""
    found = _FORBIDDEN.search(text)
    at = found.start() if found else 0
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    what = f"the character {ord(found[0]):#06x} may not be in YAML" if found else "it has no form"
    return Problem(file, line, column, "", f"not valid YAML: {what}")


def _check(roots: list[Node], texts: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    environment = Environment(environ)
    root, faults = merge(roots, environment)
    reader = Reader(environment)
    data = reader.data(root) if root else {}
    expansion = expand(data, environ)
    config, wrong = structure(expansion.data, expansion.ports)
    known = [fault for fault in expansion.faults if is_known(fault.path[0])]
    faults += reader.faults
    for found in (known, wrong, check(config, expansion.data)):
        faults += _others(found, faults)
    report = Report(
        find=Source(root, texts).find,
        secrets=_secrets(expansion) | environment.used,
        written=environment.written,
        files=tuple(texts),
    )
    holders = _holders(root) if isinstance(root, MappingNode) else frozenset()
    warnings = report(
        fault
        for fault in _others(_warnings(config, expansion, data), faults)
        if fault.path != fault.path[:1] or fault.path[0] not in holders
    )
    if faults:
        raise ConfigError(report(faults), warnings)
    return Loaded(config, warnings)


def _holders(root: MappingNode) -> frozenset[str]:
    """Return the unknown keys at the top that are there to hold what aliases stand for."""
    return frozenset(
        key.text
        for key, value in root.pairs
        if isinstance(key, Scalar)
        and not is_known(key.text)
        and (key.text.startswith("x-") or holds_shared(value))
    )


def _others(found: Iterable[Fault], refused: Iterable[Fault]) -> list[Fault]:
    """Leave out what is found at or below a place that is refused already: it follows from that."""
    paths = {fault.path for fault in refused}
    return [
        fault
        for fault in found
        if not any(fault.path[:length] in paths for length in range(1, len(fault.path) + 1))
    ]


def _warnings(config: Config, expansion: Expansion, data: Mapping[str, object]) -> Iterable[Fault]:
    # Macros are names and values of the operator's own, and were taken out of the models.
    macros = {"macros": data["macros"]} if "macros" in data else {}
    yield from remarks({**expansion.data, "macros": {}, **macros})
    yield from advise(config, expansion.data)


def _secrets(expansion: Expansion) -> dict[str, str]:
    """Return what must not be shown: the keys of clients and of peers, as far as they are texts."""
    keys = expansion.data.get("apiKeys")
    found = list(keys) if isinstance(keys, list) else [keys]
    peers = expansion.data.get("peers")
    for peer in peers.values() if isinstance(peers, dict) else ():
        found.append(peer.get("apiKey") if isinstance(peer, dict) else None)
    return {str(key): HIDDEN for key in found if isinstance(key, (str, int, float))}
