"""Several files as one: how their trees are put together, by llama-swap's rules.

Owns what may be said twice: sections are united, lists are joined, words must agree, and what has a
name (a model, a group, a peer) may be in one file only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configschema.environment import Environment
from configschema.nodes import Mapping, Node, Scalar
from configschema.nodes import Sequence as List
from configschema.problems import Fault, Path
from configschema.words import plain_word

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


def merge(roots: Sequence[Node], environment: Environment) -> tuple[Node | None, list[Fault]]:
    """Put the trees of several files together; the first one takes the others in."""
    if not roots:
        return None, []
    first, *others = roots
    faults: list[Fault] = []
    for other in others:
        if isinstance(first, Mapping) and isinstance(other, Mapping):
            faults += _take_in(first, other, (), environment)
    return first, faults


def _take_in(
    into: Mapping, other: Mapping, path: Path, environment: Environment
) -> Iterator[Fault]:
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
            yield from _unite(into, known[name], value, (*path, name), environment)


def _unite(
    into: Mapping, mine: Node, other: Node, path: Path, environment: Environment
) -> Iterator[Fault]:
    mine_is, other_is = (_word(node, environment) for node in (mine, other))
    if mine_is is None:
        into.pairs = [(key, other if value is mine else value) for key, value in into.pairs]
    elif isinstance(mine, Mapping) and isinstance(other, Mapping):
        yield from _take_in(mine, other, path, environment)
    elif isinstance(mine, List) and isinstance(other, List):
        mine.items += other.items
    elif other_is is not None and not (mine_is == other_is and isinstance(mine, Scalar)):
        where = f"{mine.mark.name}:{mine.mark.line + 1} and {other.mark.name}:{other.mark.line + 1}"
        yield Fault(path, f"two files give it different values: {where}")


def _word(node: Node, environment: Environment) -> object:
    """Return what a word stands for, with its type; None for nothing; the node if it is no word."""
    if not isinstance(node, Scalar):
        return node
    text, _ = environment.put_in(node.text)
    if not node.plain or node.tag:
        return str, text
    try:
        value = plain_word(text)
    except ValueError:  # a fault of its own, later
        return str, text
    return None if value is None else (type(value), value)
