"""From a file to a checked configuration, or to the list of everything wrong with it.

Owns the order of the steps. Each step collects its faults; the file is refused once, at the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import yaml

from configschema.checks import advise, check
from configschema.expansion import expand
from configschema.problems import ConfigError, Fault, Problem, locate, unreadable
from configschema.schema import Config
from configschema.structuring import is_known, structure, unknown_keys
from configschema.yamltree import read_tree


@attrs.frozen
class Loaded:
    """A usable configuration and what its author should know."""

    config: Config
    warnings: tuple[Problem, ...]


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read a file.

    Raises:
        ConfigError: with every problem of the file.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), line, 1, "", "not UTF-8 text")]) from None
    return parse(text, str(path), environ)


def parse(text: str, file: str = "config", environ: Mapping[str, str] = os.environ) -> Loaded:
    """Check a text; `file` names it in problems.

    Raises:
        ConfigError: with every problem of the text.
    """
    try:
        tree = read_tree(text, environ)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([unreadable(error, file)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, 1, 1, "", f"not valid YAML: {error}")]) from None
    if not isinstance(tree.data, dict):
        raise ConfigError(locate([Fault((), "expected keys with values")], tree.root, file))
    expansion = expand(tree.data)
    config, wrong = structure(expansion.data, expansion.ports)
    written = expansion.data["models"] or {}
    broken = check(config, written)
    everywhere = [*tree.faults, *expansion.faults, *wrong, *broken]
    faults = [fault for fault in everywhere if is_known(fault.path)]
    warnings = locate([*unknown_keys(tree.data), *advise(config, written)], tree.root, file)
    if faults:
        raise ConfigError(locate(faults, tree.root, file), warnings)
    return Loaded(config, warnings)
