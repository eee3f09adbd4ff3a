"""``llamadoze logs``: the log of the daemon, or of a model, once or as it goes on.

Owns what of it is printed. The log itself is the daemon's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from proxy.terminal.asking import Daemon, in_path, in_query


def show(daemon: Daemon, source: str | None, last: int | None) -> None:
    """Print what is kept of a log.

    Args:
        daemon: to ask.
        source: a model, ``proxy``, ``upstream``, or None for the log as it is written.
        last: lines that are printed; None for all.
    """
    query = f"?source={in_query(source)}" if source else ""
    text = str(daemon.ask(f"/logs{query}"))
    lines = text.splitlines()
    _write(lines if last is None else lines[len(lines) - last :] if last else [])


def follow(daemon: Daemon, source: str | None, last: int | None) -> None:
    """Print a log as it is written, until Ctrl-C or the daemon's end."""
    if last is not None:
        show(daemon, source, last)
    query = "" if last is None else "?no-history"
    part = f"/{in_path(source)}" if source else ""
    for line in daemon.lines(f"/logs/stream{part}{query}"):
        _write([line.decode("utf-8", "replace").rstrip("\r\n")])


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
