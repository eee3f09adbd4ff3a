"""Commands as an operator writes them: several lines, comments, quotes, and no shell.

Owns how a text becomes an argument vector. Macros are expanded before, processes run afterwards.
The rules are those of llama-swap's splitter. They differ from shlex for quotes that are left open,
and for a backslash inside double quotes (POSIX 2.2.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

_PIECE = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
    | '(?P<single>[^']*)(?P<single_end>'?)
    | "(?P<double>(?:[^"\\]|\\.)*)(?P<double_end>\\?"?)
    | \\(?P<escaped>.?)
    | (?P<bare>[^ \t\r\n'"\\]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r'\\([$`"\\])')


@attrs.frozen
class Command:
    """A command ready to run.

    Attributes:
        text: what the operator wrote, without comments and with macros expanded.
        argv: the text split into arguments; empty if the text is.
        open_quote: the quote that is not closed, if there is one.
        bare: the words without their quoted parts: what a shell would interpret.
    """

    text: str = attrs.field(default="", repr=False)
    argv: tuple[str, ...] = attrs.field(default=(), repr=False)
    open_quote: str = ""
    bare: tuple[str, ...] = attrs.field(default=(), repr=False)

    def __bool__(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.argv)

    def for_process(self, pid: int | None) -> tuple[str, ...]:
        """Return the arguments, with ``${PID}`` replaced by the process id if there is one."""
        if pid is None:
            return self.argv
        return tuple(argument.replace("${PID}", str(pid)) for argument in self.argv)


NO_COMMAND = Command()


def without_comments(text: str) -> str:
    """Drop the lines that begin with ``#``, as llama-swap does before it expands macros."""
    if "#" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))


def split(text: str) -> Command:
    """Split a command by POSIX quoting rules. A ``\\`` at a line's end joins it to the next.

    A quote that is not closed extends to the end, as in llama-swap.
    """
    text = without_comments(text)  # the value of a macro may have comments, too
    joined = "\n".join(_without_continuation(line) for line in text.split("\n"))
    words = list(_words(joined))
    open_quote = next((quote for *_, quote in words if quote), "")
    argv = tuple(word for word, *_ in words)
    return Command(text.strip(), argv, open_quote, tuple(bare for _, bare, _ in words))


def _words(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each word, its unquoted part, and the quote that it leaves open."""
    word: list[str] = []
    bare: list[str] = []
    for piece in _PIECE.finditer(text):
        match piece.lastgroup:
            case "space":
                if word:
                    yield "".join(word), "".join(bare), ""
                word, bare = [], []
            case "bare":
                word.append(piece["bare"])
                bare.append(piece["bare"])
            case "escaped":
                word.append(piece["escaped"])
            case "single_end":
                word.append(piece["single"])
                if not piece["single_end"]:
                    yield "".join(word), "".join(bare), "'"
                    return
            case _:
                word.append(_ESCAPED.sub(r"\1", piece["double"]))
                if not piece["double_end"].endswith('"'):
                    yield "".join(word), "".join(bare), '"'
                    return
    if word:
        yield "".join(word), "".join(bare), ""


def _without_continuation(line: str) -> str:
    bare = line.strip()
    return bare[:-1] + " " if bare.endswith("\\") else line
