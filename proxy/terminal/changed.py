"""``llamadoze reload``: what happened to the models, and which settings have changed.

Owns the messages. The daemon does the reload.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from proxy.terminal.tables import Row

CHANGES = {
    "added": "added",
    "removed": "removed when their requests have ended",
    "replaced": "restarted when their requests have ended",
    "adjusted": "changed without a restart",
}
LONGEST = 60  # characters of a value


def in_a_line(problem: Row) -> str:
    """Return a problem of the files in the form of ``llamadoze check``."""
    where = f"{problem['file']}:{problem['line']}:{problem['column']}: " if problem["file"] else ""
    return f"{where}{problem['path']}{': ' if problem['path'] else ''}{problem['message']}"


def told(seen: Row, *, dry_run: bool) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        seen: the files' state before the reload, and what it would change.
        dry_run: whether no reload was done.
    """
    yield from map(in_a_line, seen["problems"])
    yield from (f"{in_a_line(one)} (warning)" for one in seen["warnings"])
    if not seen["good"]:
        yield "not reloaded: the old configuration stays in effect"
        return
    for name, words in CHANGES.items():
        if names := seen["changes"][name]:
            yield f"{', '.join(names)}: {words}"
    for one in seen["differences"]:
        where = f"{one['model']}: " if one["model"] else ""
        yield f"{where}{one['key']}: {_short(one['old'])} -> {_short(one['new'])}"
    if seen["summary"].startswith(f"{len(seen['changes']['kept'])} model"):
        yield "nothing has changed"
    elif dry_run:
        yield "nothing is changed yet: run 'llamadoze reload' to do so"
    else:
        yield "reloaded"


def _short(value: object) -> str:
    if value is None:
        return "default"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
