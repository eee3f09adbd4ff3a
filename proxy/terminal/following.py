"""``llamadoze logs``: the log of the daemon, or of a model, once or as it goes on.

Owns what of it is printed. The log itself is the daemon's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from proxy.terminal.asking import Daemon, in_path, in_query

Write = Callable[[Iterable[str]], None]


def show(daemon: Daemon, source: str | None, last: int | None, write: Write) -> None:
    """Print what is kept of a log.

    Args:
        daemon: to ask.
        source: a model, ``proxy``, ``upstream``, or None for the log as it is written.
        last: lines that are printed; None for all.
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
    for line in daemon.lines(f"/logs/stream{part}{query}"):
        write([line.decode("utf-8", "replace").rstrip("\r\n")])


def write_json(lines: Iterable[str]) -> None:
    """Print each line as an object: its own if it is one, else with the line as ``line``."""
    write(json.dumps(_object(line), ensure_ascii=False) for line in lines)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"line": line}


def write(lines: Iterable[str]) -> None:
    """Print lines as they are."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
