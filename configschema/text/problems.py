"""Problems of a file: what is wrong, at which path, on which line.

Owns the shapes of a fault and of its report, and how values are shown in a message: short, and
never a secret. Where a path stands in the text is known by `places`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import attrs

Path = tuple[str | int, ...]
_LONGEST_SHOWN = 60
_PASSWORD = re.compile(r"//[^/@\s]*@")
HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; what is shorter is hidden as a whole value, but not within one
MOST_HINTS = 20  # in one report: each compares a name with all there are


@attrs.frozen
class Meant:
    """What may have been meant by a name that is not known: looked for when it is shown.

    Attributes:
        name: that was written.
        known: the names there are.
        form: how the nearest one is shown, in place of its ``{}``.
        likeness: from 0 to 1, how much the two must be alike.
        otherwise: what to do where no name is alike.
    """

    name: str
    known: Collection[str]
    form: str = "{}"
    likeness: float = 0.6
    otherwise: str = ""

    def nearest(self) -> str | None:
        """Return the known name that is most like it; case and underscores do not count."""
        import difflib  # few files have such a name, and each start would wait for it

        plain = {known.lower().replace("_", ""): known for known in self.known}
        wanted = self.name.lower().replace("_", "")
        near = difflib.get_close_matches(wanted, plain, n=1, cutoff=self.likeness)
        return self.form.replace("{}", plain[near[0]]) if near else None


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
    """Something wrong at a path, not yet located.

    Attributes:
        path: where.
        message: what; each ``{}`` in it stands for one of the values.
        values: of the file, shown in the message as far as they may be.
        source: the text that the values are pieces of, if they are: a piece of a secret is one.
        also: a second place that has to do with it.
        offset: characters into the text at the path; None for the path itself.
        near: what to look for in the text at the path; the place is where it is found.
        meant: what may have been meant.
        place: where it is, if that is not where the path leads.
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
    """The file cannot be used.

    Attributes:
        problems: every reason.
        warnings: what else was seen.
        texts: returns the files as far as they may be shown; none where that is not known.
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
    """How faults become problems.

    Attributes:
        find: where a path stands, or a spot in the text there: see `places.Source.find`.
        secrets: texts that must not be shown, and what is shown instead.
        written: texts that hold values of the environment, as the file has them.
        names: place by place, a name that had macros in it, as the file has it.
        public: names that the file itself spells out: no secret, whatever the environment holds.
        files: in the order in which they are reported.
    """

    find: Callable[[Path, int | None, str], Place]
    secrets: Mapping[str, str]
    written: Mapping[str, str]
    names: Mapping[Path, str]
    public: Collection[str]
    files: tuple[str, ...]

    def __call__(self, faults: Iterable[Fault]) -> tuple[Problem, ...]:
        """Locate faults, in the order of the files, each said once."""
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
        """Yield the steps of a path as the file has them, fit for a terminal."""
        for step in map(str, self._as_written(path)):
            text = step if step in self.public else self.written.get(step, step)
            yield text if text.isprintable() else repr(text)[1:-1]

    def _piece(self, value: object, source: str) -> object:
        """Hide a value that is a piece of a text, if what may be shown of the text has it not."""
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
        """Return a word in short, and say so where the environment's name stands for its value."""
        shown = self.without_secrets(text)
        hidden = shown != text and "${env." in shown
        return _short(form(shown)) + (" (its value is hidden)" if hidden else "")

    def without_secrets(self, text: str) -> str:
        """Return a text as it may be shown to anybody: as the file has it, without passwords."""
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
                # What is put in is never searched again: a short secret may be part of it.
                parts = map(self._replaced, text.split(secret))
                return self.secrets[secret].join(parts)
        return text


def and_others(models: int) -> str:
    """Return how many more models a message holds for, to be added to it."""
    return f" (and {models} more {'model' if models == 1 else 'models'})" if models else ""


def _quoted(text: str) -> str:
    """Return a text in quotes, its backslashes as they are."""
    return repr(text).replace("\\\\", "\\")


def _short(text: str) -> str:
    """Shorten a long text in its middle: of a path, the end says most."""
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return f"{text[:half]}...{text[-half:]}"
