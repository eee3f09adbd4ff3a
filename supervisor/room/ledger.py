"""Which model holds how much memory on which device, kept from one decision to the next. Pure.

Owns the memory that a model is assumed to hold awake and asleep, and the sums of what sleepers have
left. `scheduling.bymemory` decides who runs, and who makes room for whom.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import combinations
from math import comb

import attrs

from supervisor.room.space import HOST, Space
from supervisor.room.victims import Wanted
from supervisor.states.snapshot import Need, Snapshot
from supervisor.states.table import State

ABOUT_AS_EMPTY = 0.8  # share of what strangers leave free on the emptiest GPU
MOST_SETS = 40  # sets of GPUs that are tried for a model; beyond that, only GPUs side by side

Who = tuple[str, bool]
"""A model, and whether it is awake."""


@attrs.define(eq=False, slots=False)
class Entry:
    """What one model is assumed to hold on some GPUs.

    Attributes:
        need: the model's need, from which the rest follows.
        gpus: the names of the devices.
        holds: bytes on each device while the model is awake.
        alone: devices that the model has to itself while it is awake.
        rest: bytes that its sleep leaves on each device.
    """

    need: Need
    gpus: tuple[str, ...]
    holds: Mapping[str, int]
    alone: frozenset[str]
    rest: Mapping[str, int]

    @cached_property
    def wanted(self) -> Wanted:
        """What the model needs to start or wake there."""
        empty = self.alone if self.need.known.is_short else frozenset[str]()
        return Wanted(needs=self.holds, alone=self.alone, empty=empty)

    @cached_property
    def devices(self) -> frozenset[str]:
        """The devices where the model needs anything."""
        return self.wanted.devices

    @cached_property
    def used(self) -> frozenset[str]:
        """The devices that the model uses while it is awake, alone or not."""
        return self.alone.union(device for device, amount in self.holds.items() if amount)

    @cached_property
    def most(self) -> Mapping[str, int]:
        """The most bytes that it may hold on each device on its way out, awake or asleep."""
        devices = {**self.holds, **self.rest}
        return {d: max(self.holds.get(d, 0), self.rest.get(d, 0)) for d in devices}


@attrs.frozen(eq=False)
class Member:
    """One model of a crowd.

    Attributes:
        model: its snapshot.
        entry: what it is assumed to hold.
        holds: the part of it that it holds now, in bytes on each device.
        instead: what the ledger already counts for it as a sleeper.
        is_awake: whether it is awake.
        is_fixed: whether it cannot be moved.
    """

    model: Snapshot
    entry: Entry
    holds: Mapping[str, int]
    instead: Mapping[str, int]
    is_awake: bool
    is_fixed: bool


@attrs.define(eq=False)
class Crowd:
    """Some models together, updated from question to question as models come and go.

    Attributes:
        held: bytes that they hold on each device, beyond what the ledger counts for sleepers.
        on: the models that can be moved and hold memory of a device.
        alone: the models that can be moved and have a device to themselves.
        fixed: devices with awake models that cannot be moved, and how many of these there are.
        taken: of these, the devices that one model has to itself.
        members: all models of the crowd.
        stale: models that have changed.
    """

    held: defaultdict[str, int] = attrs.field(factory=lambda: defaultdict(int))
    on: defaultdict[str, dict[Who, None]] = attrs.field(factory=lambda: defaultdict(dict))
    alone: defaultdict[str, dict[Who, None]] = attrs.field(factory=lambda: defaultdict(dict))
    fixed: Counter[str] = attrs.field(factory=Counter)
    taken: Counter[str] = attrs.field(factory=Counter)
    members: dict[str, Member] = attrs.field(factory=dict)
    stale: set[str] = attrs.field(factory=set)
    _running: frozenset[str] = frozenset()
    _unmoved: frozenset[str] = frozenset()

    def look_again(self, models: Mapping[str, Snapshot], moving: Iterable[str]) -> None:
        """Note which models have changed since they were put in."""
        self.stale.update(
            name
            for name, one in self.members.items()
            if one.model is not models[name] or one.entry.gpus != one.model.gpus
        )
        self.stale.update(name for name in moving if name not in self.members)

    def differs(self, running: frozenset[str], fixed: frozenset[str]) -> set[str]:
        """Return the models to put in anew or take out so that these run; take note of them."""
        changed, self.stale = self.stale, set()
        if running != self._running:
            changed |= running ^ self._running
        if fixed != self._unmoved:
            changed |= fixed ^ self._unmoved
        self._running, self._unmoved = running, fixed
        return changed

    def put(self, one: Member) -> None:
        """Put a model in."""
        self.members[one.model.model] = one
        self._count(one, 1)
        if one.is_fixed:
            return
        who = one.model.model, one.is_awake
        for device, amount in one.holds.items():
            if amount:
                self.on[device][who] = None
        for device in one.entry.alone if one.is_awake else ():
            self.on[device][who] = self.alone[device][who] = None

    def take(self, name: str) -> None:
        """Take a model out, if it is in."""
        one = self.members.pop(name, None)
        if one is None:
            return
        self._count(one, -1)
        who = name, one.is_awake
        for device in {*one.holds, *one.entry.alone}:
            self.on[device].pop(who, None)
            self.alone[device].pop(who, None)

    def _count(self, one: Member, sign: int) -> None:
        for device, amount in one.holds.items():
            self.held[device] += sign * amount
        for device, amount in one.instead.items():
            self.held[device] -= sign * amount
        if one.is_fixed and one.is_awake:
            if one.model.pin is None:  # others may use what a pinned model leaves
                _add(self.fixed, one.entry.used, sign)
            _add(self.taken, one.entry.alone, sign)


def _add(counts: Counter[str], devices: Iterable[str], sign: int) -> None:
    for device in devices:
        counts[device] += sign
        if not counts[device]:
            del counts[device]


@attrs.define(eq=False)
class Ledger:
    """What models hold, kept from one decision to the next.

    Attributes:
        space: only the sizes of its devices count here.
        held: bytes that sleepers have left on each device.
        asleep: the sleepers by device, each with what it has left there.
        planned: the models that hold memory once a decision has been carried out.
        present: the models that hold memory now.
        homes: bytes on each GPU that its sleepers need to wake, beyond what they hold there.
    """

    space: Space
    held: defaultdict[str, int] = attrs.field(factory=lambda: defaultdict(int), init=False)
    asleep: defaultdict[str, dict[str, int]] = attrs.field(
        factory=lambda: defaultdict(dict), init=False
    )
    planned: Crowd = attrs.field(factory=Crowd, init=False)
    present: Crowd = attrs.field(factory=Crowd, init=False)
    homes: Counter[str] = attrs.field(factory=Counter, init=False)
    _entries: dict[tuple[str, tuple[str, ...]], Entry] = attrs.field(factory=dict, init=False)
    _rests: dict[str, Mapping[str, int]] = attrs.field(factory=dict, init=False)
    _wakes: dict[str, Mapping[str, int]] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, space: Space, models: Iterable[Snapshot]) -> Ledger:
        """Return the ledger of some models in their present states."""
        ledger = cls(space)
        for model in models:
            if model.state is State.ASLEEP:
                ledger.sleeps(model)
        return ledger

    @property
    def crowds(self) -> tuple[Crowd, Crowd]:
        """Both crowds."""
        return self.planned, self.present

    def entry(self, model: Snapshot, gpus: tuple[str, ...]) -> Entry:
        """Return what a model is assumed to hold on some GPUs."""
        key = model.model, gpus
        known = self._entries.get(key)
        if known is None or known.need is not model.need:
            holds, alone = amounts_of(model.need, gpus, self.space)
            known = Entry(model.need, gpus, holds, alone, rest_of(model, gpus))
            self._entries[key] = known
        return known

    def sleeps(self, model: Snapshot) -> None:
        """Note that a model sleeps on its GPUs."""
        self.sleeps_no_more(model.model)
        entry = self.entry(model, model.gpus)
        rest = self._rests[model.model] = entry.rest
        self._wakes[model.model] = wakes = {
            gpu: self.space.whole.get(gpu, 0) if gpu in entry.alone else entry.holds.get(gpu, 0)
            for gpu in model.gpus
        }
        self.homes.update(wakes)
        for device, amount in rest.items():
            if amount:
                self.held[device] += amount
                self.asleep[device][model.model] = amount

    def sleeps_no_more(self, name: str) -> None:
        """Note that a model does not sleep any more."""
        self.homes.subtract(self._wakes.pop(name, {}))
        for device, amount in self._rests.pop(name, {}).items():
            if amount:
                self.held[device] -= amount
                del self.asleep[device][name]

    def rest(self, name: str) -> Mapping[str, int]:
        """Return what a sleeper has left; empty for a model that does not sleep."""
        return self._rests.get(name, {})


def uses_gpus(need: Need) -> bool:
    """Whether a model runs on a GPU, as far as is known."""
    return need.gpus > 0 and need.known.gpus != ()


def starts_of(need: Need, space: Space) -> Sequence[tuple[str, ...]]:
    """Return the sets of GPUs that a model can start on, preferring GPUs that are large enough."""
    gpus = space.gpus
    if need.only:
        return [tuple(gpu for gpu in need.only if gpu in gpus)]
    count = min(need.gpus, len(gpus))
    if not count or not uses_gpus(need):
        return [()]
    most = max(need.known.gpus or (0,))
    large = [gpu for gpu in gpus if space.whole[gpu] >= most]
    if not (need.known.is_known and need.known.gpus):  # it gets whole GPUs: the emptiest ones
        free = space.free_for_models
        emptiest = max(free[gpu] for gpu in gpus)
        large = [gpu for gpu in gpus if free[gpu] >= ABOUT_AS_EMPTY * emptiest]
    return _sets_of(tuple(large if len(large) >= count else gpus), count)


@lru_cache(64)
def _sets_of(gpus: tuple[str, ...], count: int) -> Sequence[tuple[str, ...]]:
    if comb(len(gpus), count) > MOST_SETS:
        return [gpus[start : start + count] for start in range(len(gpus) - count + 1)]
    return list(combinations(gpus, count))


def amounts_of(
    need: Need, gpus: Sequence[str], space: Space
) -> tuple[dict[str, int], frozenset[str]]:
    """Return what a model is assumed to hold awake on some GPUs, and its exclusive devices.

    A model that was never measured and has no guess gets a whole device.
    """
    known = need.known
    amounts = {HOST: known.host or 0}
    alone: frozenset[str] = frozenset()
    if gpus and known.is_known and known.gpus:
        each = [*known.gpus, *(known.gpus[:1] * len(gpus))]
        amounts |= dict(zip(gpus, each, strict=False))
    elif gpus:
        alone = frozenset(gpus)
    elif not space.gpus and not (known.is_known and known.host is not None):
        alone = frozenset({HOST})
    # A device of size 0 is too small for any one of them, and not large enough for all.
    alone = alone.union(d for d, amount in amounts.items() if amount and space.whole.get(d) == 0)
    return {d: min(amount, space.whole.get(d, amount)) for d, amount in amounts.items()}, alone


def rest_of(model: Snapshot, gpus: Sequence[str]) -> dict[str, int]:
    """Return what a model's sleep leaves, as far as that was measured, including its growth."""
    known = model.need.known
    left = known.gpus_asleep or ()
    amounts = {gpu: amount + known.growth for gpu, amount in zip(gpus, left, strict=False)}
    growth = 0 if left else known.growth
    return {HOST: (known.host_asleep or 0) + growth, **amounts}
