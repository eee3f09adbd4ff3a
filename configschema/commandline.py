"""Commands as an operator writes them: many lines, comments, quotes, and no shell.

Owns how a text becomes an argument vector. Macros are expanded before, processes are run after.
"""

from __future__ import annotations

import re
import shlex

import attrs

_SPECIAL = re.compile(r"[\"'\\]")
_WORD = re.compile(r"[^ \t\r\n]+")


@attrs.frozen
class Command:
    """A command ready to run.

    Attributes:
        text: what the operator wrote, comments dropped and macros expanded.
        argv: the same split into arguments; empty if the text is.
        open_quote: the quote that is begun and not ended, if there is one.
    """

    text: str = attrs.field(default="", repr=False)
    argv: tuple[str, ...] = attrs.field(default=(), repr=False)
    open_quote: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.argv)

    def for_process(self, pid: int) -> tuple[str, ...]:
        """Return the arguments with ``${PID}`` replaced by the model process's id."""
        return tuple(argument.replace("${PID}", str(pid)) for argument in self.argv)


def without_comments(text: str) -> str:
    """Drop the lines that begin with ``#``, as llama-swap does before it expands macros."""
    if "#" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))


def split(text: str) -> Command:
    """Split a command by POSIX quoting rules; a ``\\`` at a line's end joins it to the next.

    A quote that is not closed reaches to the end, as for llama-swap.
    """
    text = without_comments(text)  # a macro's value may have brought more
    joined = "\n".join(_without_continuation(line) for line in text.split("\n"))
    if not _SPECIAL.search(joined):
        return Command(text.strip(), tuple(_WORD.findall(joined)))
    argv, open_quote = _split_quoted(joined)
    return Command(text.strip(), argv, open_quote)


def _split_quoted(text: str) -> tuple[tuple[str, ...], str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return tuple(lexer), ""
    except ValueError:  # the text ends inside of a quote or after a backslash
        if text.endswith("\\"):
            return _split_quoted(text[:-1])
        quote = lexer.state or "'"  # type: ignore[attr-defined] # the stubs leave it out
        return _split_quoted(text + quote)[0], quote


def _without_continuation(line: str) -> str:
    bare = line.strip()
    return bare[:-1] + " " if bare.endswith("\\") else line
