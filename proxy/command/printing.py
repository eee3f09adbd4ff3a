"""What a command prints before there is a log: lines, warnings, JSON.

Owns how they reach the terminal, or whoever reads in its place.
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
    """Print lines of what is wrong."""
    _write(sys.stderr, lines)


def as_warnings(problems: Iterable[object]) -> list[str]:
    """Return warnings as they are printed."""
    return [f"{problem} (warning)" for problem in problems]


def _write(stream: TextIO, lines: Iterable[object]) -> None:
    with contextlib.suppress(OSError):  # the reader went away
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
