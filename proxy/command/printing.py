"""The output of commands that have no log: lines, warnings, JSON.

Owns how it reaches the terminal, or the program that reads it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from typing import TextIO


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


def _write(stream: TextIO, lines: Iterable[object]) -> None:
    with contextlib.suppress(OSError):  # the reader has gone
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
