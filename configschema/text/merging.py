"""Several files as one configuration: their trees are merged by llama-swap's rules.

Owns what several files may say together. Sections are united and lists are joined. Plain values
must be equal. A thing with a name (a model, a group, a peer) may be in one file only.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from configschema.text.environment import Environment
from configschema.text.nodes import Mapping, Node, Scalar
from configschema.text.nodes import Sequence as List
from configschema.text.problems import Fault, Path
from configschema.text.words import plain_word

# Sections whose keys are names of things. The list is llama-swap's.
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
    """Merge the trees of several files, in order: each file adds to those before it."""
    if not roots:
        return None, []
    united, *others = roots
    merger = _Merger(environment)
    for other in others:
        united = merger.unite(united, other, ())
    return united, merger.faults


@attrs.define
class _Merger:
    """Makes new nodes, because aliases may put a file's own node in several places."""

    environment: Environment
    faults: list[Fault] = attrs.field(factory=list)

    def unite(self, mine: Node, other: Node, path: Path) -> Node:
        mine_is, other_is = self._word(mine), self._word(other)
        if mine_is is None or other_is is None:
            return other if mine_is is None else mine
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            return self._mappings(mine, other, path)
        if isinstance(mine, List) and isinstance(other, List):
            return List(mine.mark, [*mine.items, *other.items])
        if mine_is != other_is:
            self._complain(path, "two files set this key to different values", mine, other)
        return mine

    def _mappings(self, mine: Mapping, other: Mapping, path: Path) -> Mapping:
        united = Mapping(mine.mark, list(mine.pairs), [*mine.merged, *other.merged])
        places = {self._name(key): place for place, (key, _) in enumerate(mine.pairs)}
        for key, value in other.pairs:
            name = self._name(key)
            place = places.get(name) if name is not None else None
            if place is None:
                united.pairs.append((key, value))
                continue
            my_key, my_value = mine.pairs[place]
            if path in NAMED:
                self._complain((*path, str(name)), "is in two files", my_key, key)
            else:
                united.pairs[place] = my_key, self.unite(my_value, value, (*path, str(name)))
        return united

    def _name(self, key: Node) -> str | None:
        return self.environment.put_in(key.text)[0] if isinstance(key, Scalar) else None

    def _word(self, node: Node) -> object:
        """Return a scalar's value with its type, None for an empty one, else the node itself."""
        if not isinstance(node, Scalar):
            return node
        text, _ = self.environment.put_in(node.text)
        if not node.plain or node.tag:
            return str, text
        try:
            value = plain_word(text)
        except ValueError:  # `values` reports it later
            return str, text
        return None if value is None else (type(value), value)

    def _complain(self, path: Path, what: str, one: Node, other: Node) -> None:
        where = " and ".join(f"{node.mark.name}:{node.mark.line + 1}" for node in (one, other))
        self.faults.append(Fault(path, f"{what}: {where}"))
