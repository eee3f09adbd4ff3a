"""Which of its targets a selector chooses for a request.

Owns llama-swap's three strategies, and the count of the requests that came through a spillover
selector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from configschema import Selector
from proxy.http.errors import BadRequest
from proxy.naming.directory import Local, Target
from supervisor import State
from supervisor.states.table import IN_MOTION

StateOf = Callable[[str], State]
LEAVING = {State.STOPPING}
ACTIVE = {State.READY, *IN_MOTION}


@attrs.define(eq=False)
class Selectors:
    """Choose targets, and remember each choice until its request has ended."""

    _reserved: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    _turn: int = attrs.field(default=0, init=False)

    @contextmanager
    def chosen(
        self, name: str, selector: Selector, targets: Sequence[Target], state_of: StateOf
    ) -> Iterator[Target]:
        """Choose a target, which has one more request for as long as the block lasts.

        Args:
            name: the selector's name.
            selector: the selector's settings.
            targets: the targets behind the selector's names, in its order.
            state_of: returns the state of a local model.

        Raises:
            BadRequest: no target is available now.
        """
        self._turn += 1
        reserved = {target.id: self._reserved[name, target.id] for target in targets}
        target = choose(selector, targets, state_of, reserved, self._turn)
        if target is None:
            text = f"no target of selector '{name}' is available now: retry in 1s"
            raise BadRequest(text, status=503, headers={"Retry-After": "1"})
        self._reserved[name, target.id] += 1
        try:
            yield target
        finally:
            self._reserved[name, target.id] -= 1


def choose(
    selector: Selector,
    targets: Sequence[Target],
    state_of: StateOf,
    reserved: dict[str, int],
    turn: int,
) -> Target | None:
    """Choose among targets, or return None if no target is available.

    Args:
        selector: has the strategy, and the number of requests at which another target is used.
        targets: in the selector's order.
        state_of: returns the state of a local model.
        reserved: requests by target that came through the selector and have not ended.
        turn: counts the choices, so that equal targets alternate.
    """
    if selector.strategy == "warm":
        return _warm(targets, state_of)
    if selector.strategy == "spillover":
        return _spillover(selector.settings.spillover, targets, state_of, reserved, turn)
    return targets[0] if targets else None


def _warm(targets: Sequence[Target], state_of: StateOf) -> Target | None:
    """Return the first target by state: ready, starting or waking, asleep, queued, any other."""
    rank = {State.READY: 0, State.STARTING: 1, State.WAKING: 1, State.ASLEEP: 2, State.QUEUED: 3}
    return min(targets, key=lambda target: rank.get(_state(target, state_of), 4), default=None)


def _spillover(
    limit: int,
    targets: Sequence[Target],
    state_of: StateOf,
    reserved: dict[str, int],
    turn: int,
) -> Target | None:
    usable = [one for one in targets if _state(one, state_of) not in LEAVING]
    active = [one for one in usable if reserved[one.id] or _state(one, state_of) in ACTIVE]
    cold = [one for one in usable if one not in active]
    if not active:
        return cold[0] if cold else None
    least = min(reserved[one.id] for one in active)
    equals = [one for one in active if reserved[one.id] == least]
    if least >= limit and cold:
        return cold[0]
    return equals[turn % len(equals)]


def _state(target: Target, state_of: StateOf) -> State:
    """Return the state of a target. A peer counts as ready."""
    return state_of(target.model.id) if isinstance(target, Local) else State.READY
