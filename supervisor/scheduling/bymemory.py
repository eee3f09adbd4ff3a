"""Which models make room for which, by memory: a pure function, as groups and matrix are.

Owns which models run together, and on which GPU a model runs. `room.victims` finds the cheapest
set. `ledger` says what a model is assumed to hold, and `losses` what a move costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from supervisor.room.ledger import Crowd, Entry, Ledger, Member, Who, starts_of
from supervisor.room.losses import losses_of
from supervisor.room.space import HOST, Space
from supervisor.room.victims import NO_WAY, Cost, Eviction, Tenant, cheapest, tight
from supervisor.scheduling.placement import Plan, Rivals
from supervisor.states.snapshot import UNKNOWN, Costs, Snapshot
from supervisor.states.table import ENDED, IN_MOTION, ON_THE_WAY_OUT, State, Wish

SLEEPS = frozenset({State.ASLEEP, State.FALLING_ASLEEP, State.WAKING})
NOBODY = Eviction()
Rank = tuple[Cost, bool, float]
"""How good a place is, less is better: the loss, then what `_spoils` returns."""
HALF_ASLEEP = SLEEPS - {State.ASLEEP}


@attrs.frozen
class Seat:
    """A place for a model: its GPUs, and the models that make room for it there."""

    gpus: tuple[str, ...]
    eviction: Eviction = attrs.field(factory=Eviction)


@attrs.define(eq=False)
class ByMemory(Rivals):
    """The memory that there is, for one decision.

    Attributes:
        models: all models that run, sleep, or are waited for.
        space: the memory that they may hold.
        now: on Trio's clock.
        max_wait: seconds that a model in use keeps others waiting at most; 0 is no limit.
        usual: the usual costs of steps, for steps that were never measured of a model.
        ledger: what models hold, if the caller keeps that between decisions; then `models` needs
        unwanted sleepers only on demand.
    """

    models: Mapping[str, Snapshot]
    space: Space
    now: float
    max_wait: float = 10
    usual: Costs = UNKNOWN
    ledger: Ledger | None = None
    _ledger: Ledger = attrs.field(init=False)
    _free: Mapping[str, int] = attrs.field(init=False)
    _moving: frozenset[str] = attrs.field(init=False)
    _found: dict[str, Seat | None] = attrs.field(factory=dict, init=False)
    _seats: dict[str, tuple[str, ...]] = attrs.field(factory=dict, init=False)
    _tenants: dict[Who, Tenant] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = self.ledger or Ledger.of(self.space, self.models.values())
        self._free = {HOST: 0, **self.space.free_for_models}
        moving = (name for name, one in self.models.items() if one.state in HALF_ASLEEP)
        self._moving = frozenset(moving)
        for crowd in self._ledger.crowds:
            crowd.look_again(self.models, self._moving)

    # What a decision asks.

    def of(self, name: str, plan: Plan) -> frozenset[str] | None:
        """Return the cheapest set of models that makes the room."""
        seat = self._found[name] = self.seat(name, plan.running, plan.claimed)
        return seat.eviction.all if seat else None

    def claim(self, name: str) -> None:
        """Keep the GPUs that were found for the model."""
        if seat := self._found.get(name):
            self._sit(name, seat.gpus)

    def must_end(self, name: str, rival: str) -> bool:
        """Whether the rival's end is part of the cheapest set."""
        seat = self._found.get(name)
        return seat is not None and rival in seat.eviction.ended

    def must_move(self, name: str, plan: Plan) -> bool:
        """Whether it has room on other GPUs only."""
        if not self._sits_badly(name) or self.seat(name, plan.running) is not None:
            return False
        return self._could_move(name, plan.running, plan.claimed)

    def places(self, name: str) -> Sequence[tuple[str, ...]]:
        """Return where a model could be, including places that it can use only after its end."""
        model = self.models[name]
        more = starts_of(model.need, self.space) if self._sits_badly(name) else ()
        return [*self._places(model), *more]

    def entry(self, name: str, gpus: tuple[str, ...]) -> Entry:
        """Return what a model is assumed to hold on some GPUs."""
        return self._ledger.entry(self.models[name], gpus)

    def free(self, device: str) -> int | None:
        """Return the bytes of a device that models may have; None if it is gone."""
        return self._free.get(device)

    def _could_move(self, name: str, running: frozenset[str], fixed: frozenset[str]) -> bool:
        if not self._sits_badly(name):
            return False
        model = self.models[name]
        return self._best(name, starts_of(model.need, self.space), running, fixed) is not None

    def _sits_badly(self, name: str) -> bool:
        """Whether it does not run where it is, and could start elsewhere."""
        model = self.models[name]
        return bool(model.gpus) and (model.state is State.ASLEEP or model.is_ending)

    def is_in_the_way(self, name: str, holding: frozenset[str]) -> bool:
        """Whether it does not fit beside what all of these hold now."""
        model = self.models[name]
        if model.is_ending:  # it starts again after that, perhaps elsewhere
            return True
        if model.wish is Wish.SERVE and model.state in IN_MOTION:  # it has its place
            return False
        seats = [self._seats[name]] if name in self._seats else self._places(model)
        seat = self._best(name, seats, holding, frozenset(), self._ledger.present)
        if seat and not seat.eviction.all:
            self._sit(name, seat.gpus)
            return False
        return True

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return the GPUs on which it was found to fit."""
        return self._seats.get(name, ())

    def _sit(self, name: str, gpus: tuple[str, ...]) -> None:
        if gpus != (self._seats.get(name) or self.models[name].gpus):
            for crowd in self._ledger.crowds:  # it may be counted there in another place
                crowd.stale.add(name)
            self._tenants.clear()
        self._seats[name] = gpus

    # Where a model fits, and which models make room for it.

    def seat(
        self, name: str, running: frozenset[str], fixed: frozenset[str] = frozenset()
    ) -> Seat | None:
        """Return the best place for a model; None if there is none, whichever models leave.

        Args:
            name: the model.
            running: the models that are awake then.
            fixed: those of them that cannot be moved.
        """
        return self._best(name, self._places(self.models[name]), running, fixed)

    def _places(self, model: Snapshot) -> Sequence[tuple[str, ...]]:
        """Return the sets of GPUs that a model can use; a server keeps its own."""
        if model.state not in ENDED and model.gpus:
            return [model.gpus]
        return starts_of(model.need, self.space)

    def _best(
        self,
        name: str,
        places: Iterable[tuple[str, ...]],
        running: frozenset[str],
        fixed: frozenset[str],
        crowd: Crowd | None = None,
    ) -> Seat | None:
        """Return the place with the least loss; among places without loss, the best fit."""
        beside = running - {name} if name in fixed or self.models[name].pin else running
        crowd = self._gathered(crowd or self._ledger.planned, beside, fixed)
        before = self._lacks_without(name, crowd)
        best: tuple[Rank, Seat] | None = None
        for gpus in places:
            if not self._free.keys() >= set(gpus):  # one of the GPUs is gone
                continue
            entry = self._ledger.entry(self.models[name], gpus)
            lacks = before.copy()
            for device, amount in entry.holds.items():
                lacks[device] += amount
            below = best[0][0] if best else NO_WAY
            found = self._eviction(name, entry, lacks, crowd, beside, below)
            if found is None:
                continue
            rank = found.cost, *self._spoils(entry, lacks)
            if best is None or rank < best[0]:
                best = rank, Seat(gpus, found)
        return best and best[1]

    def _eviction(
        self,
        name: str,
        entry: Entry,
        lacks: Mapping[str, int],
        crowd: Crowd,
        beside: frozenset[str],
        below: Cost,
    ) -> Eviction | None:
        """Return who makes room on some GPUs; None if that is not enough, or too expensive."""
        if crowd.taken.keys() & entry.devices or crowd.fixed.keys() & entry.alone:
            return None
        if _fits(entry, lacks, crowd):
            return NOBODY
        if below <= NOBODY.cost and not entry.alone:
            return None
        near = self._tenants_near(name, entry, lacks, crowd, beside)
        return cheapest(near, entry.wanted, lacks, below)

    def _spoils(self, entry: Entry, lacks: Mapping[str, int]) -> tuple[bool, float]:
        """Return what a model spoils on its GPUs: sleepers' room to wake, and large gaps."""
        homes = self._ledger.homes
        left = {gpu: 0 if entry.alone else -lacks[gpu] for gpu in entry.gpus}
        misses = any(homes[gpu] > max(0, room) for gpu, room in left.items())
        free = sum(lacks[gpu] for gpu in entry.gpus)  # for a whole GPU: the emptiest
        return misses, free if entry.alone else sum(left.values())

    def _gathered(self, crowd: Crowd, running: frozenset[str], fixed: frozenset[str]) -> Crowd:
        """Update a crowd so that all models that hold memory then are in it."""
        for name in crowd.differs(running, fixed):
            crowd.take(name)
            is_awake = name in running
            if is_awake or name in self._moving:
                model = self.models[name]
                is_fixed = model.pin is not None or (is_awake and name in fixed)
                holds = self._holds(model, is_awake=is_awake)
                rest = self._ledger.rest(name)
                crowd.put(Member(model, self._entry(model), holds, rest, is_awake, is_fixed))
        return crowd

    def _lacks_without(self, name: str, crowd: Crowd) -> dict[str, int]:
        """Return what each device lacks without the newcomer's memory; free room is below 0."""
        member, held, asleep = crowd.members.get(name), crowd.held, self._ledger.held
        lacks = {d: held[d] + asleep[d] - amount for d, amount in self._free.items()}
        own = self._ledger.rest(name) if member is None else member.holds
        for device, amount in own.items():
            if device in lacks:
                lacks[device] -= amount
        return lacks

    def _tenants_near(
        self,
        name: str,
        entry: Entry,
        lacks: Mapping[str, int],
        crowd: Crowd,
        running: frozenset[str],
    ) -> list[Tenant]:
        """Return the movable models that matter: they hold missing memory, or must be elsewhere."""
        short = {d for d, amount in entry.holds.items() if amount > 0 and lacks[d] > 0}
        near = self._holders(short | entry.alone, crowd, running)
        for device in entry.devices - short:
            near |= crowd.alone[device]
        found = self._as_tenants(near, name)
        more = set(tight(found, lacks)) - short if near else set[str]()
        if more:
            found = self._as_tenants(near | self._holders(more, crowd, running), name)
        return found

    def _holders(
        self, devices: Iterable[str], crowd: Crowd, running: frozenset[str]
    ) -> dict[Who, None]:
        """Return the movable models that hold memory of these devices."""
        near = {who: None for device in devices for who in crowd.on[device]}
        near |= {
            (other, False): None
            for device in devices
            for other in self._ledger.asleep[device]
            if other not in running and not self.models[other].pin
        }
        return near

    def _as_tenants(self, near: Iterable[Who], name: str) -> list[Tenant]:
        return [
            self._tenant(self.models[other], is_awake=is_awake)
            for other, is_awake in near
            if other != name
        ]

    # What a model is assumed to hold, and what it costs to move it.

    def _entry(self, model: Snapshot) -> Entry:
        return self._ledger.entry(model, self._seats.get(model.model) or model.gpus)

    def _holds(self, model: Snapshot, *, is_awake: bool) -> Mapping[str, int]:
        entry = self._entry(model)
        if not is_awake:
            return entry.rest
        return entry.most if model.state in ON_THE_WAY_OUT else entry.holds

    def _tenant(self, model: Snapshot, *, is_awake: bool) -> Tenant:
        key = model.model, is_awake
        if key not in self._tenants:
            self._tenants[key] = self._new_tenant(model, self._entry(model), is_awake)
        return self._tenants[key]

    def _new_tenant(self, model: Snapshot, entry: Entry, is_awake: bool) -> Tenant:
        seconds_idle = self.now - model.idle_since
        to_sleep, to_end = losses_of(model, is_awake, seconds_idle, self.max_wait, self.usual)
        return Tenant(
            model=model.model,
            holds=self._holds(model, is_awake=is_awake),
            rest=entry.rest,
            alone=entry.alone if is_awake else frozenset(),
            is_awake=is_awake,
            can_sleep=model.can_sleep,
            to_sleep=to_sleep,
            to_end=to_end,
        )


def _fits(entry: Entry, lacks: Mapping[str, int], crowd: Crowd) -> bool:
    """Whether a model fits as things are; if it wants a whole device, a closer look is needed."""
    if entry.alone or any(lacks[d] > 0 for d, amount in entry.holds.items() if amount > 0):
        return False
    return not any(crowd.alone[device] for device in entry.devices)
