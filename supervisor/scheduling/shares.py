"""What each API key has had, and what it may have if several compete: turns and places.

Owns the account of turns, and which callers are at which model. Turns are counted as in start-time
fair queueing (Goyal, Vin, Cheng 1996). Without named keys nothing is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import attrs

from configschema import Config
from supervisor.scheduling.queueing import Turn


def weights_of(config: Config) -> Mapping[str, int]:
    """Return the share of each key that has a name."""
    return {key.name: key.share for key in config.api_keys if key.name}


def part_of(limit: int, key: str, present: Iterable[str], weights: Mapping[str, int]) -> int:
    """Return how many of some places a key may have while others are there; at least one.

    Args:
        limit: the number of places.
        key: the name of an API key; empty for all keys without a name.
        present: the names of the keys that are there.
        weights: the share of each key; 1 if a key is missing.
    """
    together = sum(weights.get(name, 1) for name in {key, *present})
    return max(1, limit * weights.get(key, 1) // together)


def is_below_part(key: str, there: Iterable[str], limit: int, weights: Mapping[str, int]) -> bool:
    """Whether a key has less than its part of some places, and other keys are there.

    Args:
        key: the name of an API key; empty for all keys without a name.
        there: the key of each caller that has a place or waits for one.
        limit: the number of places.
        weights: the share of each named key; without any, no key has a part.
    """
    counted = Counter(there)
    has_rivals = bool(weights) and bool(counted.keys() - {key})
    return has_rivals and counted[key] < part_of(limit, key, counted, weights)


@attrs.define(eq=False)
class Shares:
    """The account of all keys.

    Attributes:
        weights: the share of each named key; empty counts nothing.
    """

    weights: Mapping[str, int]
    _ends: dict[str, float] = attrs.field(factory=dict, init=False)
    _clock: float = attrs.field(default=0.0, init=False)
    _there: defaultdict[str, set[Turn]] = attrs.field(factory=lambda: defaultdict(set), init=False)

    def come(self, turn: Turn) -> None:
        """Count a turn at a model, waiting or served."""
        if self.weights:
            self._there[turn.server.model.id].add(turn)

    def go(self, turn: Turn) -> None:
        """Stop counting a turn."""
        if self._there:
            self._there[turn.server.model.id].discard(turn)

    def may_come(self, turn: Turn, limit: int) -> bool:
        """Whether a turn may wait for a place at a model whose places are taken."""
        there = self._there.get(turn.server.model.id, ())
        return self._is_below(turn, there, limit)

    def may_wait(self, turn: Turn, waiting: Iterable[Turn], limit: int) -> bool:
        """Whether a turn may wait although the queue is full."""
        return self._is_below(turn, waiting, limit)

    def _is_below(self, turn: Turn, others: Iterable[Turn], limit: int) -> bool:
        keys = [one.asker.key for one in others] if self.weights else []
        return is_below_part(turn.asker.key, keys, limit, self.weights)

    def next_of(self, model: str, waiting: list[Turn], places: int) -> list[Turn]:
        """Return who gets a model's free places: each goes to the key that has the least there."""
        if not self.weights or len(waiting) <= places:
            return waiting[:places]
        served = (one.asker.key for one in self._there.get(model, ()) if one.lease is not None)
        counted, left, found = Counter(served), list(waiting), []
        for _ in range(places):
            first = min(left, key=lambda one: counted[one.asker.key] / self._weight(one.asker.key))
            left.remove(first)
            found.append(first)
            counted[first.asker.key] += 1
        return found

    def start_of(self, turn: Turn) -> float:
        """Return when a turn begins on the account's clock; the lowest number goes first."""
        return max(self._clock, self._ends.get(turn.asker.key, 0.0)) if self.weights else 0.0

    def charge(self, waiting: Iterable[Turn]) -> None:
        """Count a model's start or wake as a turn, shared by the keys that wait for it."""
        starts = {one.asker.key: self.start_of(one) for one in waiting} if self.weights else {}
        if starts:
            self._clock = min(starts.values())
        for key, start in starts.items():
            self._ends[key] = start + 1 / (len(starts) * self._weight(key))

    def _weight(self, key: str) -> int:
        return self.weights.get(key, 1)
