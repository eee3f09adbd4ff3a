"""What the sets of a matrix allow: which models may run together, and in which alternatives.

Answers the question for a few models at a time, so an expression with thousands of alternatives is
never written out. The supervisor decides which model makes room for which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from math import prod
from operator import or_

import attrs

from configschema.rules.matrixlanguage import (
    Either,
    Expression,
    Name,
    Reference,
    Together,
    leaves,
    references,
)

MOST_ALTERNATIVES = 64  # of one expression, where an approximate answer is good enough


@attrs.frozen
class Sets:
    """All sets of a matrix.

    Attributes:
        expressions: by the name of the set; references form no cycle.
        models: for each short name, its model.
    """

    expressions: Mapping[str, Expression]
    models: Mapping[str, str]

    def members(self) -> list[str]:
        """Return every model that is in any set, each once."""
        names = (
            leaf.name
            for tree in self.expressions.values()
            for leaf in leaves(tree)
            if isinstance(leaf, Name)
        )
        return list(dict.fromkeys(self.models.get(name, name) for name in names))

    def allow_together(self, wanted: frozenset[str]) -> bool:
        """Whether some set has all of these models at once.

        If there are too many alternatives to be sure, the answer is yes.
        """
        every = (1 << len(wanted)) - 1
        return any(
            len(masks) > MOST_ALTERNATIVES or every in masks
            for _, masks in self.alternatives(sorted(wanted), MOST_ALTERNATIVES)
        )

    def alternatives(
        self, relevant: Sequence[str], most: int | None = None
    ) -> Iterator[tuple[str, list[int]]]:
        """Yield each set with its alternatives, reduced to the relevant models.

        An alternative is a bit mask, in which bit 0 is the first relevant model. An alternative
        that is part of another one is left out. The order is llama-swap's, which settles ties: sets
        in the order of the file, but each set after those it refers to; alternatives from left to
        right.

        Args:
            relevant: the models in question.
            most: roughly how many alternatives to look at; None looks at all.
        """
        bits = {model: 1 << place for place, model in enumerate(relevant)}
        known: dict[str, list[int]] = {}
        for name in self._in_order():
            known[name] = self._project(self.expressions[name], bits, known, most)
            yield name, known[name]

    def written_out(self, models: Sequence[str], most: int) -> list[int] | None:
        """Return all alternatives of all sets, in the order of `alternatives`.

        Return None, without writing out any, if there are more than `most`.
        """
        counts: dict[str, int] = {}
        for name in self._in_order():
            counts[name] = _count(self.expressions[name], counts)
        if sum(counts.values()) > most:
            return None
        bits = {model: 1 << place for place, model in enumerate(models)}
        known: dict[str, list[int]] = {}
        for name in self._in_order():
            known[name] = list(self._each(self.expressions[name], bits, known))
        return list(dict.fromkeys(mask for masks in known.values() for mask in masks))

    def partners(self) -> dict[str, frozenset[str]]:
        """Return for each model all models that some set allows together with it."""
        members: dict[str, frozenset[str]] = {}
        found: dict[str, set[str]] = {}
        for name in self._in_order():
            members[name] = self._pair(self.expressions[name], members, found)
        return {name: frozenset(others) for name, others in found.items()}

    def _in_order(self) -> Iterator[str]:
        """Yield the sets in the order of the file, but each set after those it refers to."""
        ahead = references(self.expressions)
        done: set[str] = set()
        for first in self.expressions:
            path = [first]
            while path:
                if waits_for := [name for name in ahead[path[-1]] if name not in done]:
                    path.append(waits_for[0])
                elif (name := path.pop()) not in done:
                    done.add(name)
                    yield name

    def _project(
        self,
        expression: Expression,
        bits: Mapping[str, int],
        known: Mapping[str, list[int]],
        most: int | None,
    ) -> list[int]:
        match expression:
            case Name(name):
                return [bits.get(self.models.get(name, name), 0)]
            case Reference(name):
                return known[name]
            case Either(parts):
                each = (self._project(part, bits, known, most) for part in parts)
                return _frontier((mask for masks in each for mask in masks), most)
            case Together(parts):
                so_far = [0]
                for part in parts:
                    more = self._project(part, bits, known, most)
                    so_far = _frontier((one | other for one in so_far for other in more), most)
                return so_far

    def _each(
        self, expression: Expression, bits: Mapping[str, int], known: Mapping[str, list[int]]
    ) -> Iterator[int]:
        match expression:
            case Name(name):
                yield bits[self.models.get(name, name)]
            case Reference(name):
                yield from known[name]
            case Either(parts):
                for part in parts:
                    yield from self._each(part, bits, known)
            case Together(parts):
                for chosen in product(*(list(self._each(part, bits, known)) for part in parts)):
                    yield reduce(or_, chosen)

    def _pair(
        self,
        expression: Expression,
        members: Mapping[str, frozenset[str]],
        found: dict[str, set[str]],
    ) -> frozenset[str]:
        """Note which models meet in an expression. Return all models in it."""
        match expression:
            case Name(name):
                return frozenset({self.models.get(name, name)})
            case Reference(name):
                return members[name]
            case Either(parts):
                return frozenset().union(*(self._pair(part, members, found) for part in parts))
            case Together(parts):
                together: frozenset[str] = frozenset()
                for part in parts:
                    more = self._pair(part, members, found)
                    for one in together:
                        found.setdefault(one, set()).update(more)
                    for one in more:
                        found.setdefault(one, set()).update(together)
                    together |= more
                return together


def _count(expression: Expression, counts: Mapping[str, int]) -> int:
    """Return how many alternatives an expression has."""
    match expression:
        case Name():
            return 1
        case Reference(name):
            return counts[name]
        case Either(parts):
            return sum(_count(part, counts) for part in parts)
        case Together(parts):
            return prod(_count(part, counts) for part in parts)


def _frontier(masks: Iterable[int], most: int | None) -> list[int]:
    """Drop masks that are part of another one. A mask that replaces others goes to the end."""
    kept: list[int] = []
    seen: set[int] = set()
    for mask in masks:
        if mask in seen:
            continue
        seen.add(mask)
        if any(mask | other == other for other in kept):
            continue
        kept = [other for other in kept if other | mask != mask]
        kept.append(mask)
        if most is not None and len(kept) > most:
            break
    return kept
