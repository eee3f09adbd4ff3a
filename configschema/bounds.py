"""Bounds on a file before it becomes a tree: depth, loops, and aliases of aliases.

Owns what is refused so that everything after it may recurse. Works on parser events, which need no
memory but for what is open.
"""

from __future__ import annotations

import attrs
import yaml

DEEPEST = 50  # levels; real files have fewer than ten
LARGEST = 1_000_000  # nodes, with every alias counted as what it stands for


@attrs.define
class _Open:
    """A collection that is not closed yet, and the nodes counted in it."""

    anchor: str | None
    size: int = 1


def check_bounds(text: str, loader: type[yaml.CSafeLoader]) -> None:
    """Read a text once, to see that it is of a sane size.

    Raises:
        yaml.YAMLError: it is not, or it is not YAML.
    """
    opened = [_Open(None)]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=loader):
        match event:
            case yaml.CollectionStartEvent():
                opened.append(_Open(event.anchor))
            case yaml.CollectionEndEvent():
                closed = opened.pop()
                opened[-1].size += closed.size
                if closed.anchor:
                    sizes[closed.anchor] = closed.size
            case yaml.AliasEvent():
                if any(event.anchor == outer.anchor for outer in opened):
                    raise _refusal("an alias stands inside of what it stands for", event)
                opened[-1].size += sizes.get(event.anchor or "", 1)
            case _:
                opened[-1].size += 1
        if len(opened) > DEEPEST:
            raise _refusal(f"more than {DEEPEST} levels", event)
        if opened[-1].size > LARGEST:
            raise _refusal(f"more than {LARGEST} values, its aliases followed", event)


def _refusal(what: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    # The C parser's marks have all that is read of a mark.
    return yaml.MarkedYAMLError(None, None, what, event.start_mark)  # type: ignore[arg-type]
