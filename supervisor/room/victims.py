"""The cheapest way to make room: who sleeps, who stops. Pure; of models it knows only sizes.

Owns the choice. `scheduling.bymemory` says what each way costs. The choice is exact while few
models hold the missing memory, and bounded in time if many do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from functools import cached_property
from math import inf

import attrs

MOST_STEPS = 400  # of the search; after that, the best choice known so far is taken
MOST_SEARCHED = 40  # tenants; if there are more, one after the other is taken, best value first

Cost = tuple[int, float]
"""How many end that could sleep or do sleep, then seconds. The first counts before the second."""
NO_WAY: Cost = (1 << 30, inf)


class Way(Enum):
    """What happens to a tenant."""

    SLEEP = auto()
    END = auto()


@attrs.frozen(kw_only=True, slots=False)
class Tenant:
    """A model that holds memory and can be moved.

    Attributes:
        model: its name.
        holds: bytes on each device, at most.
        rest: the bytes that its sleep leaves there.
        alone: devices that it has to itself while it is awake.
        is_awake: whether it is awake; if it sleeps, `holds` is what its sleep has left.
        can_sleep: whether it can sleep.
        to_sleep: seconds that its sleep is expected to cost.
        to_end: seconds that its stop is expected to cost.
    """

    model: str
    holds: Mapping[str, int]
    rest: Mapping[str, int] = attrs.field(factory=dict)
    alone: frozenset[str] = frozenset()
    is_awake: bool = True
    can_sleep: bool = True
    to_sleep: float = 1.0
    to_end: float = 30.0

    @cached_property
    def grows(self) -> Mapping[str, int]:
        """The bytes that it would hold on a device asleep beyond what it holds awake."""
        if not (self.is_awake and self.can_sleep):
            return {}
        more = {device: rest - self.holds.get(device, 0) for device, rest in self.rest.items()}
        return {device: amount for device, amount in more.items() if amount > 0}


@attrs.frozen(kw_only=True)
class Wanted:
    """What a model needs that starts or wakes.

    Attributes:
        needs: bytes on each device.
        alone: devices on which no other model may be awake.
        empty: of these, the devices on which no other model may sleep, either.
    """

    needs: Mapping[str, int]
    alone: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()

    @property
    def devices(self) -> frozenset[str]:
        """The devices where it needs anything."""
        return self.alone.union(device for device, amount in self.needs.items() if amount > 0)


@attrs.frozen(kw_only=True)
class Eviction:
    """Which models make room, and how; empty if there is room already."""

    asleep: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    cost: Cost = (0, 0.0)

    @property
    def all(self) -> frozenset[str]:
        """All models that make room."""
        return self.asleep | self.ended


@attrs.frozen
class _Option:
    """One way to move one tenant: what that frees of each device that lacks room."""

    tenant: str
    way: Way
    cost: Cost
    freed: tuple[int, ...]


def cheapest(
    tenants: Sequence[Tenant], wanted: Wanted, lacks: Mapping[str, int], below: Cost = NO_WAY
) -> Eviction | None:
    """Return the set of tenants that makes the room at least cost; None if no set does.

    The set has no tenant without whom the others would be enough.

    Args:
        tenants: the models that can be moved and hold any of the missing memory, or are in the way
        for another reason; more tenants do no harm.
        wanted: what has to fit in.
        lacks: bytes that are missing on each device while no model leaves; a number below 0 is free
        room.
        below: what the set must cost less than, to be of any use.
    """
    missing = {d: lacks[d] for d, need in wanted.needs.items() if need > 0 and lacks[d] > 0}
    # Where only the tenants' sleep makes room short, no one has to leave as long as it does not.
    missing |= {d: min(0, lacks.get(d, 0)) for d in tight(tenants, lacks) if d not in missing}
    short = tuple(missing)
    must = [tenant for tenant in tenants if _must_leave(tenant, wanted)]
    forced = {tenant.model for tenant in must}
    may = [
        one
        for one in tenants
        if one.model not in forced and any(one.holds.get(device) for device in short)
    ]
    if not (must or any(amount > 0 for amount in missing.values())):
        return Eviction()
    choices = [_options(one, short, wanted) for one in must]
    choices += [[*_options(one, short, wanted), None] for one in may]
    amounts = tuple(missing.values())
    choices.sort(key=_worth)
    if len(choices) > MOST_SEARCHED:
        best = _one_by_one(choices, amounts)
    else:
        search = _Search(choices, below)
        search.run(amounts)
        best = search.best
    return None if best is None else _eviction(_needed(best, must, amounts), below)


def tight(tenants: Iterable[Tenant], lacks: Mapping[str, int]) -> list[str]:
    """Return the devices that have less room than the sleep of all tenants might take.

    Weights that leave a GPU may go to the host's memory.
    """
    more: dict[str, int] = {}
    for tenant in tenants:
        for device, amount in tenant.grows.items():
            more[device] = more.get(device, 0) + amount
    return [device for device, amount in more.items() if amount > max(0, -lacks.get(device, 0))]


def _eviction(chosen: Sequence[_Option], below: Cost) -> Eviction | None:
    cost = sum(one.cost[0] for one in chosen), sum(one.cost[1] for one in chosen)
    if cost >= below:
        return None
    asleep = frozenset(one.tenant for one in chosen if one.way is Way.SLEEP)
    ended = frozenset(one.tenant for one in chosen if one.way is Way.END)
    return Eviction(asleep=asleep, ended=ended, cost=cost)


def _needed(
    chosen: Sequence[_Option], must: Sequence[Tenant], lacks: tuple[int, ...]
) -> list[_Option]:
    """Leave out the tenants that the others can do without, the most expensive first."""
    forced, kept = {tenant.model for tenant in must}, list(chosen)
    for one in sorted(chosen, key=lambda option: option.cost, reverse=True):
        others = [other for other in kept if other is not one]
        if one.tenant not in forced and _is_enough(others, lacks):
            kept = others
    return kept


def _is_enough(chosen: Sequence[_Option], lacks: tuple[int, ...]) -> bool:
    return all(
        sum(one.freed[place] for one in chosen) >= amount for place, amount in enumerate(lacks)
    )


def _one_by_one(
    choices: Sequence[list[_Option | None]], lacks: tuple[int, ...]
) -> list[_Option] | None:
    """Take tenants in order of value until there is enough room; stop them if there is not."""
    chosen: dict[str, _Option] = {}
    for last in (False, True):
        for choice in choices:
            options = [option for option in choice if option]
            is_forced = None not in choice and not last
            if is_forced or not _is_enough([*chosen.values()], lacks):
                option = options[-1] if last else options[0]
                chosen[option.tenant] = option
    return [*chosen.values()] if _is_enough([*chosen.values()], lacks) else None


def _must_leave(tenant: Tenant, wanted: Wanted) -> bool:
    """Whether a tenant and the newcomer cannot share a device, whatever room there is."""
    if not tenant.is_awake:
        return any(tenant.holds.get(device) for device in wanted.empty)
    beside = wanted.devices & tenant.alone
    return bool(beside) or any(tenant.holds.get(device) for device in wanted.alone)


def _options(tenant: Tenant, short: Sequence[str], wanted: Wanted) -> list[_Option | None]:
    """Return the ways to move a tenant, the cheapest first."""
    held = tuple(tenant.holds.get(device, 0) for device in short)
    end = _Option(
        tenant.model, Way.END, (int(tenant.can_sleep or not tenant.is_awake), tenant.to_end), held
    )
    if not (tenant.is_awake and tenant.can_sleep):
        return [end]
    left = (tenant.rest.get(device, 0) for device in short)
    freed = tuple(all_of_it - rest for all_of_it, rest in zip(held, left, strict=True))
    return [_Option(tenant.model, Way.SLEEP, (0, tenant.to_sleep), freed), end]


@attrs.define(eq=False)
class _Search:
    """Looks for the cheapest choice, tenant by tenant; skips branches that cannot be better.

    Attributes:
        choices: for each tenant, what can happen to it; None means that it stays.
        cost: the cost of the best choice so far, or the bound that a choice must stay below.
        best: the best choice so far.
    """

    choices: list[list[_Option | None]]
    cost: Cost
    best: list[_Option] | None = attrs.field(default=None, init=False)
    _steps: int = attrs.field(default=0, init=False)
    _left: list[tuple[int, ...]] = attrs.field(factory=list, init=False)
    _rates: list[list[float]] = attrs.field(factory=list, init=False)

    def run(self, lacks: tuple[int, ...]) -> None:
        self._left, self._rates = [(0,) * len(lacks)], [[inf] * len(lacks)]
        for choice in reversed(self.choices):
            options = [option for option in choice if option]
            most = map(max, zip(*(option.freed for option in options), strict=True))
            self._left.append(tuple(map(sum, zip(self._left[-1], most, strict=True))))
            self._rates.append(_least_rates(self._rates[-1], options))
        self._left, self._rates = self._left[::-1], self._rates[::-1]
        self._try(0, lacks, (0, 0.0), [])

    def _try(self, place: int, lacks: tuple[int, ...], cost: Cost, chosen: list[_Option]) -> None:
        if cost >= self.cost or (self._steps > MOST_STEPS and self.cost < NO_WAY):
            return
        self._steps += 1
        is_enough = all(amount <= 0 for amount in lacks)
        if place == len(self.choices) or (is_enough and None in self.choices[place]):
            if is_enough:
                self.cost, self.best = cost, list(chosen)
            return
        if any(amount > most for amount, most in zip(lacks, self._left[place], strict=True)):
            return
        if cost[0] == self.cost[0] and not is_enough and self._costs_more(place, lacks, cost[1]):
            return
        for option in self.choices[place]:
            if option is None:
                self._try(place + 1, lacks, cost, chosen)
                continue
            left = tuple(amount - freed for amount, freed in zip(lacks, option.freed, strict=True))
            total = cost[0] + option.cost[0], cost[1] + option.cost[1]
            chosen.append(option)
            self._try(place + 1, left, total, chosen)
            chosen.pop()

    def _costs_more(self, place: int, lacks: tuple[int, ...], seconds: float) -> bool:
        """Whether the rest costs too much even at the best rate, if no more tenants end."""
        pairs = zip(lacks, self._rates[place], strict=True)
        return any(lack > 0 and seconds + lack * rate >= self.cost[1] for lack, rate in pairs)


def _least_rates(rates: Sequence[float], options: Sequence[_Option]) -> list[float]:
    """Return the fewest seconds per byte of each device, of the options that end no tenant."""
    free = [option for option in options if option.cost[0] == 0]
    return [
        min([rate, *(one.cost[1] / one.freed[n] for one in free if one.freed[n] > 0)])
        for n, rate in enumerate(rates)
    ]


def _worth(choice: list[_Option | None]) -> tuple[bool, int, float, str]:
    """Order tenants: first those that must leave, then those that free most for their cost."""
    first = choice[0]
    assert first is not None  # noqa: S101 -- None, to stay, comes last
    count, seconds = first.cost
    return None in choice, count, seconds / (max(0, sum(first.freed)) + 1), first.tenant
