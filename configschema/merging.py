"""Several files as one: how their trees are put together, by llama-swap's rules.

Owns what may be said twice: sections are united, lists are joined, words must agree, and what has a
name (a model, a group, a peer) may be in one file only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configschema.problems import Fault, Path
from configschema.words import WORDS
from configschema.yamltree import Mapping, Node, Scalar
from configschema.yamltree import Sequence as List

# Sections whose keys are names of things; llama-swap's list.
NAMED: frozenset[Path] = frozenset(
    {
        ("models",),
        ("groups",),
        ("profiles",),
        ("selectors",),
        ("peers",),
        ("matrix",),
        ("routing", "router", "settings", "groups"),
        ("routing", "router", "settings", "matrix"),
    }
)


def merge(roots: Sequence[Node]) -> tuple[Node | None, list[Fault]]:
    """Put the trees of several files together; the first one takes the others in."""
    if not roots:
        return None, []
    first, *others = roots
    faults: list[Fault] = []
    for other in others:
        if isinstance(first, Mapping) and isinstance(other, Mapping):
            faults += _take_in(first, other, ())
    return first, faults


def _take_in(into: Mapping, other: Mapping, path: Path) -> Iterator[Fault]:
    known = {key.text: value for key, value in into.pairs if isinstance(key, Scalar)}
    into.merged += other.merged
    for position, (key, value) in enumerate(other.pairs):
        name = key.text if isinstance(key, Scalar) else None
        if name is None or name not in known:
            into.pairs.append((key, value))
        elif path in NAMED:
            first, again = known[name].mark, other.pairs[position][0].mark
            where = f"{first.name}:{first.line + 1} and {again.name}:{again.line + 1}"
            yield Fault((*path, name), f"is in two files: {where}")
        else:
            yield from _unite(into, name, known[name], value, (*path, name))


def _unite(into: Mapping, name: str, mine: Node, other: Node, path: Path) -> Iterator[Fault]:
    if _is_nothing(mine):
        into.pairs = [
            (key, other if isinstance(key, Scalar) and key.text == name else value)
            for key, value in into.pairs
        ]
    elif isinstance(mine, Mapping) and isinstance(other, Mapping):
        yield from _take_in(mine, other, path)
    elif isinstance(mine, List) and isinstance(other, List):
        mine.items += other.items
    elif not _is_nothing(other) and not _are_alike(mine, other):
        where = f"{mine.mark.name}:{mine.mark.line + 1} and {other.mark.name}:{other.mark.line + 1}"
        yield Fault(path, f"two files give it different values: {where}")


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and WORDS.get(node.text, "") is None


def _are_alike(one: Node, other: Node) -> bool:
    if not (isinstance(one, Scalar) and isinstance(other, Scalar)):
        return False
    return (one.text, one.plain) == (other.text, other.plain)
