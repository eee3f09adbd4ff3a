"""Problems of a file: what is wrong, at which path, on which line.

Owns the shapes of a fault and of its report, and the way from a path to a place in the YAML tree.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import yaml

Path = tuple[str | int, ...]


@attrs.frozen
class Fault:
    """Something wrong at a path, not yet located."""

    path: Path
    message: str


@attrs.frozen
class Problem:
    """Something wrong in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """One line for an operator's terminal, in the form editors jump to."""
        where = f"{self.file}:{self.line}:{self.column}: "
        return where + (f"{self.path}: {self.message}" if self.path else self.message)


class ConfigError(Exception):
    """The file cannot be used; `problems` holds every reason, `warnings` what else was seen."""

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(map(str, self.problems)))


def locate(faults: Iterable[Fault], root: yaml.Node | None, file: str) -> tuple[Problem, ...]:
    """Give each fault its line and column, in the order of the file, each said once."""
    found = {_problem(fault.path, fault.message, place(root, fault.path), file) for fault in faults}
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column, problem.message)))


def unreadable(error: yaml.MarkedYAMLError, file: str) -> Problem:
    """Describe a fault of the YAML itself."""
    mark = error.problem_mark or error.context_mark
    return _problem((), f"not valid YAML: {error.problem or error.context}", mark, file)


def place(root: yaml.Node | None, path: Path) -> yaml.Mark | None:
    """Return where a path begins, or the nearest part of it that is in the file."""
    mark, node = (root.start_mark if root else None), root
    for step in path:
        key, node = _child(node, step)
        if node is None:
            break
        mark = (key or node).start_mark
    return mark


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    match node:
        case yaml.MappingNode():
            pairs = ((key, value) for key, value in node.value if key.value == str(step))
            return next(pairs, (None, None))
        case yaml.SequenceNode() if isinstance(step, int) and step < len(node.value):
            return None, node.value[step]
        case _:
            return None, None


def _problem(path: Path, message: str, mark: yaml.Mark | None, file: str) -> Problem:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(file, line, column, ".".join(map(str, path)), message)
