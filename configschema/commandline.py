"""Commands as an operator writes them: many lines, comments, quotes, and no shell.

Owns how a text becomes an argument vector. Macros are expanded before, processes are run after.
"""

from __future__ import annotations

import shlex

import attrs


@attrs.frozen
class Command:
    """A command ready to run.

    Attributes:
        text: what the operator wrote, comments dropped and macros expanded.
        argv: the same split into arguments; empty if the text is.
    """

    text: str = ""
    argv: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.argv)

    def for_process(self, pid: int) -> tuple[str, ...]:
        """Return the arguments with ``${PID}`` replaced by the model process's id."""
        return tuple(argument.replace("${PID}", str(pid)) for argument in self.argv)


def without_comments(text: str) -> str:
    """Drop the lines that begin with ``#``, as llama-swap does before it expands macros."""
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))


def split(text: str) -> Command:
    """Split a command by POSIX quoting rules; a ``\\`` at a line's end joins it to the next.

    Raises:
        ValueError: a quote or an escape is left open.
    """
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ").strip()
    return Command(text=text.strip(), argv=tuple(shlex.split(joined)))
