"""Problems of a file: what is wrong, at which path, on which line.

Owns the shapes of a fault and of its report, and how values are shown in a message: short, and
never a secret. Where a path stands in the text is known by `yamltree`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import Any

import attrs

Path = tuple[str | int, ...]
_LONGEST_SHOWN = 60
HIDDEN = "***"


@attrs.frozen
class Fault:
    """Something wrong at a path, not yet located.

    Attributes:
        path: where.
        message: what; each ``{}`` in it stands for one of the values.
        values: of the file, shown in the message as far as they may be.
        also: a second place that has to do with it.
        offset: characters into the text at the path; None for the path itself.
        near: what to look for in the text at the path; the place is where it is found.
    """

    path: Path
    message: str
    values: tuple[Any, ...] = ()
    also: Path | None = None
    offset: int | None = None
    near: str = ""


@attrs.frozen
class Place:
    """A spot in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """In the form editors jump to."""
        return f"{self.file}:{self.line}:{self.column}"


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


@attrs.frozen
class Report:
    """How faults become problems.

    Attributes:
        find: where a path stands, or a spot in the text there: see `yamltree.Source.find`.
        secrets: what must not be shown, and what is shown instead.
        files: in the order in which they are reported.
    """

    find: Callable[[Path, int | None, str], Place]
    secrets: Mapping[str, str]
    files: tuple[str, ...]

    def __call__(self, faults: Iterable[Fault]) -> tuple[Problem, ...]:
        """Locate faults, in the order of the files, each said once."""
        return tuple(sorted({self._problem(fault) for fault in faults}, key=self._order))

    def _problem(self, fault: Fault) -> Problem:
        place = self.find(fault.path, fault.offset, fault.near)
        message = fault.message
        if fault.values:
            texts = zip_longest(message.split("{}"), map(self._shown, fault.values), fillvalue="")
            message = "".join(part + value for part, value in texts)
        if fault.also is not None:
            message += f" (see {self.find(fault.also, 0, '')})"
        path = ".".join(self._without_secrets(step) for step in fault.path)
        return Problem(place.file, place.line, place.column, path, message)

    def _order(self, problem: Problem) -> tuple[int, int, int, str]:
        file = self.files.index(problem.file) if problem.file in self.files else -1
        return file, problem.line, problem.column, problem.message

    def _shown(self, value: object) -> str:
        match value:
            case bool():
                return str(value).lower()
            case None:
                return "nothing"
            case dict() | list():
                return "names and values" if isinstance(value, dict) else "a list"
            case str():
                return _short(repr(self._without_secrets(value)))
            case _:
                return _short(self._without_secrets(value))

    def _without_secrets(self, value: object) -> str:
        text = str(value)
        for secret in sorted(self.secrets, key=len, reverse=True):
            if secret and secret in text:
                # What is put in is never searched again: a short secret may be part of it.
                parts = map(self._without_secrets, text.split(secret))
                return self.secrets[secret].join(parts)
        return text


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
