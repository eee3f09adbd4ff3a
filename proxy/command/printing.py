"""The output of commands that have no log: lines, warnings, JSON.

Owns how it reaches the terminal, or the program that reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from click.exceptions import Exit


def say(*lines: object) -> None:
    """Print lines."""
    _write(sys.stdout, lines)


def say_json(data: object) -> None:
    """Print JSON."""
    say(json.dumps(data, indent=2, ensure_ascii=False))


def complain(*lines: object) -> None:
    """Print lines about a problem."""
    _write(sys.stderr, lines)


def as_warnings(problems: Iterable[object]) -> list[str]:
    """Return warnings in the form in which they are printed."""
    return [f"{problem} (warning)" for problem in problems]


@contextmanager
def quiet_if_unread() -> Iterator[None]:
    """End the command quietly if the reader of its output has gone, as ``head`` does.

    A daemon's connection that breaks never gets here: `asking` reports it.

    Raises:
        Exit: the reader has gone.
    """
    try:
        yield
    except BrokenPipeError:
        _discard()
        raise Exit(0) from None


def _discard() -> None:
    """Let the rest of the output go nowhere, so that Python's own last flush does not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _write(stream: TextIO, lines: Iterable[object]) -> None:
    with contextlib.suppress(OSError):  # the reader has gone
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
