"""Problems of a file: what is wrong, at which path, on which line.

Owns the shapes of a fault and of its report, and how a message shows values: short, and never a
secret. `places` knows where a path is in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import attrs

from configschema.text.likeness import USUAL, nearest

Path = tuple[str | int, ...]
_LONGEST_SHOWN = 60
_PASSWORD = re.compile(r"//[^/@\s]*@")
HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; a shorter one is hidden only where it is the whole value
MOST_HINTS = 20  # in one report: each hint compares a name with all known names


@attrs.frozen
class Meant:
    """A guess at what an unknown name was meant to be. The search runs when the message is shown.

    Attributes:
        name: the name in the file.
        known: the names that exist.
        form: how the nearest name is shown, in place of its ``{}``.
        likeness: how much the two names must be alike, from 0 to 1.
        otherwise: the advice if no known name is similar.
    """

    name: str
    known: Collection[str]
    form: str = "{}"
    likeness: float = USUAL
    otherwise: str = ""

    def nearest(self) -> str | None:
        """Return the most similar known name, in its form."""
        near = nearest(self.name, self.known, self.likeness)
        return None if near is None else self.form.replace("{}", near)


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
class Fault:
    """Something wrong at a path, before its line is known.

    Attributes:
        path: where the fault is.
        message: what is wrong; each ``{}`` stands for one of the values.
        values: values of the file, which the message shows unless they are secret.
        source: the text that the values are taken from, if any. A piece of a secret is a secret.
        also: a second place that has to do with the fault.
        offset: characters into the text at the path; None for the path itself.
        near: a word to look for in the text at the path; the fault's place is there.
        meant: a guess at what was meant.
        place: the fault's place, if the path does not lead to it.
    """

    path: Path
    message: str
    values: tuple[Any, ...] = ()
    source: str = ""
    also: Path | None = None
    offset: int | None = None
    near: str = ""
    meant: Meant | None = None
    place: Place | None = None


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
    """The configuration cannot be used.

    Attributes:
        problems: every reason.
        warnings: the warnings that were found as well.
        texts: returns the files without secrets; empty if they are not known.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        warnings: Iterable[Problem] = (),
        texts: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        self.texts = texts
        super().__init__("\n".join(map(str, self.problems)))


@attrs.frozen
class Report:
    """Turns faults into problems.

    Attributes:
        find: returns the place of a path, or of a spot in its text: see `places.Source.find`.
        secrets: texts that must not be shown, and what is shown instead.
        written: texts with values of the environment, and how the file wrote them.
        names: for each path whose name had macros in it, the name as the file has it.
        public: names that the file itself spells out. They are no secrets, whatever the environment
            has.
        files: the files, in the order of the report.
    """

    find: Callable[[Path, int | None, str], Place]
    secrets: Mapping[str, str]
    written: Mapping[str, str]
    names: Mapping[Path, str]
    public: Collection[str]
    files: tuple[str, ...]

    def __call__(self, faults: Iterable[Fault]) -> tuple[Problem, ...]:
        """Locate faults. Each is reported once, in the order of the files."""
        placed = [(fault.place or self._place(fault), fault) for fault in faults]
        placed.sort(key=self._order)
        hints = MOST_HINTS
        problems: dict[Problem, None] = {}
        for place, fault in placed:
            message = self._message(fault, hints > 0)
            hints -= fault.meant is not None
            path = ".".join(self._names(fault.path))
            problems[Problem(place.file, place.line, place.column, path, message)] = None
        return tuple(problems)

    def _place(self, fault: Fault) -> Place:
        return self.find(self._as_written(fault.path), fault.offset, fault.near)

    def _as_written(self, path: Path) -> Path:
        return tuple(self.names.get(path[:end], step) for end, step in enumerate(path, 1))

    def _order(self, placed: tuple[Place, Fault]) -> tuple[int, int, int, str]:
        place, fault = placed
        file = self.files.index(place.file) if place.file in self.files else -1
        return file, place.line, place.column, fault.message

    def _message(self, fault: Fault, with_hint: bool) -> str:
        shown = [self._shown(self._piece(value, fault.source)) for value in fault.values]
        texts = zip_longest(fault.message.split("{}"), shown, fillvalue="")
        message = "".join(part + value for part, value in texts)
        if fault.meant and with_hint:
            nearest = fault.meant.nearest()
            message += f"; did you mean {self._shown(nearest)}?" if nearest else ""
            message += f"; {fault.meant.otherwise}" if fault.meant.otherwise and not nearest else ""
        if fault.also is not None:
            message += f" (see {self.find(fault.also, None, '')})"
        return message

    def _names(self, path: Path) -> Iterator[str]:
        """Yield the steps of a path as the file has them, safe to print on a terminal."""
        for step in map(str, self._as_written(path)):
            text = step if step in self.public else self.written.get(step, step)
            yield text if text.isprintable() else repr(text)[1:-1]

    def _piece(self, value: object, source: str) -> object:
        """Hide a piece of a text, unless the text without its secrets still has it."""
        whole = value == source or not source
        return value if whole or str(value) in self.without_secrets(source) else HIDDEN

    def _shown(self, value: object) -> str:
        match value:
            case bool():
                return str(value).lower()
            case None:
                return "nothing"
            case dict() | list():
                return "names and values" if isinstance(value, dict) else "a list"
            case str():
                return self._word(value, _quoted)
            case _:
                return self._word(str(value), str)

    def _word(self, text: str, form: Callable[[str], str]) -> str:
        """Return a shortened word. Say so if a variable's name is shown in place of its value."""
        shown = self.without_secrets(text)
        hidden = shown != text and "${env." in shown
        return _short(form(shown)) + (" (its value is hidden)" if hidden else "")

    def without_secrets(self, text: str) -> str:
        """Return a text as anybody may see it: as the file has it, without passwords."""
        return _PASSWORD.sub(f"//{HIDDEN}@", self._replaced(text))

    def _replaced(self, text: str) -> str:
        if text in self.public:
            return text
        if text in self.written:
            return self.written[text]
        for secret in sorted(self.secrets, key=len, reverse=True):
            if not secret:
                continue
            if secret == text or (len(secret) >= SHORTEST_SECRET and secret in text):
                # The replacement is never searched again: a short secret may be part of it.
                parts = map(self._replaced, text.split(secret))
                return self.secrets[secret].join(parts)
        return text


def and_others(models: int) -> str:
    """Return the end of a message that is true of more models: how many more."""
    return f" (and {models} more {'model' if models == 1 else 'models'})" if models else ""


def _quoted(text: str) -> str:
    """Return a text in quotes, its backslashes as they are."""
    return repr(text).replace("\\\\", "\\")


def _short(text: str) -> str:
    """Shorten a long text in its middle: the end of a path says most."""
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return f"{text[:half]}...{text[-half:]}"
