"""``llamadoze logs``: the log of the daemon or a model, once or continuously.

Owns what is printed of it. The daemon owns the log.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from proxy.terminal.asking import BrokeOff, Daemon, in_path, in_query

Write = Callable[[Iterable[str]], None]


def show(daemon: Daemon, source: str | None, last: int | None, write: Write) -> None:
    """Print the lines of a log that the daemon keeps.

    Args:
        daemon: the daemon.
        source: a model, ``proxy``, ``upstream``, or None for the log as it is written.
        last: the number of last lines to print; None for all.
        write: prints lines.
    """
    query = f"?source={in_query(source)}" if source else ""
    text = str(daemon.ask(f"/logs{query}"))
    lines = text.splitlines()
    write(lines if last is None else lines[len(lines) - last :] if last else [])


def follow(daemon: Daemon, source: str | None, last: int | None, write: Write) -> None:
    """Print a log as it is written, until Ctrl-C or the daemon's end."""
    if last is not None:
        show(daemon, source, last, write)
    query = "" if last is None else "?no-history"
    part = f"/{in_path(source)}" if source else ""
    with contextlib.suppress(BrokeOff):
        for line in daemon.lines(f"/logs/stream{part}{query}"):
            write([line.decode("utf-8", "replace").rstrip("\r\n")])


def write_json(lines: Iterable[str]) -> None:
    """Print each line as a JSON object: as it is, or as ``{"line": ...}`` if it is none."""
    write(json.dumps(_object(line), ensure_ascii=False) for line in lines)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"line": line}


def write(lines: Iterable[str]) -> None:
    """Print lines unchanged."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
