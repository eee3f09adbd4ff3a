"""Models for which nothing can make room: who holds the memory, and what the client is told. Pure.

Owns the words, and the difference between models that may not be moved and strangers. The scheduler
decides who waits, and for how long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

import attrs

from supervisor.room.ledger import Entry, amounts_of, rest_of
from supervisor.room.space import HOST, Space
from supervisor.scheduling.bymemory import SLEEPS, ByMemory
from supervisor.scheduling.placement import MakeRoom
from supervisor.sleep.proof import size
from supervisor.states.durations import seconds
from supervisor.states.pins import Pin
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State


@attrs.frozen(kw_only=True)
class Blocked:
    """Why there is no room for a model.

    Attributes:
        why: in an operator's words.
        by_strangers: whether other programs hold the memory, which may pass.
        until: when the first of the models that may not be moved may be, on Trio's clock.
    """

    why: str
    by_strangers: bool = False
    until: float = inf


def blocked_by_rule(
    name: str, models: Mapping[str, Snapshot], make_room: MakeRoom, now: float
) -> Blocked | None:
    """Return the models that would have to leave by the rule, but may not be moved."""
    pins = {other: pin for other, model in models.items() if model.stays and (pin := model.pin)}
    held = make_room(name, frozenset(pins) - {name})
    found = {other: pins[other] for other in sorted(held)}
    if not found:
        return None
    holders = "; ".join(_pinned(other, pin, now) for other, pin in found.items())
    until = min(pin.until for pin in found.values())
    return Blocked(why=f"it cannot run beside models that are kept: {holders}", until=until)


def blocked_by_memory(name: str, room: ByMemory) -> Blocked | None:
    """Return why a model has no place, even if all models leave that may be moved."""
    others = {other: model for other, model in room.models.items() if other != name}
    stuck = frozenset(other for other, model in others.items() if model.left)
    if _has_place(name, stuck, room):
        return None
    alone = attrs.evolve(room, space=attrs.evolve(room.space, others={}))
    held = {
        other: one
        for other, one in others.items()
        if other in stuck or (one.pin and (one.stays or one.state is State.ASLEEP))
    }
    until = min((one.pin.until for one in held.values() if one.pin), default=inf)
    return Blocked(
        why=_missing(name, room, held),
        by_strangers=_has_place(name, stuck, alone),
        until=until,
    )


def _has_place(name: str, stuck: Collection[str], room: ByMemory) -> bool:
    """Whether there is a place for a model if others leave, even if the model must end first."""
    staying = [
        _Staying(room.entry(other, model.gpus), is_awake)
        for other, model in room.models.items()
        if other != name and (is_awake := _stays(model, stuck)) is not None
    ]
    return any(_could_be(room.entry(name, gpus), staying, room) for gpus in room.places(name))


@attrs.frozen
class _Staying:
    """A model that cannot be moved."""

    entry: Entry
    is_awake: bool

    @property
    def holds(self) -> Mapping[str, int]:
        return self.entry.holds if self.is_awake else self.entry.rest


def _stays(model: Snapshot, stuck: Collection[str]) -> bool | None:
    """Return whether a model that cannot be moved is awake; None if it can, or holds nothing."""
    if model.model in stuck or (model.pin and model.stays):
        return True
    return False if model.pin and model.state in SLEEPS else None


def _could_be(entry: Entry, staying: Sequence[_Staying], room: ByMemory) -> bool:
    """Whether there is a place on some GPUs beside the models that cannot be moved."""
    if any(room.free(gpu) is None for gpu in entry.gpus):
        return False
    awake = [one.entry for one in staying if one.is_awake]
    if any(one.alone & entry.devices for one in awake):
        return False
    return all(
        amount + sum(one.holds.get(device, 0) for one in staying) <= (room.free(device) or 0)
        for device, amount in entry.holds.items()
        if amount
    )


def _missing(name: str, room: ByMemory, held: Mapping[str, Snapshot]) -> str:
    """Say what a model needs, and for each device what holds it."""
    model, space = room.models[name], room.space
    gpus = (
        (model.gpus or tuple(space.gpus)) if model.need.gpus and model.need.known.gpus != () else ()
    )
    needs, alone = amounts_of(model.need, gpus[:1], space)
    device = gpus[0] if gpus else HOST
    what = "a device of its own" if alone else f"{size(needs.get(device, 0))}"
    parts = [_device(one, room, held) for one in (gpus or (HOST,))]
    return f"it needs {what}, and {'; '.join(parts)}"


def _device(device: str, room: ByMemory, held: Mapping[str, Snapshot]) -> str:
    """Say how large a device is, and which models hold it that cannot be moved."""
    space = room.space
    said = [f"of {size(space.whole.get(device, 0))} on {space.title(device)}"]
    for other, model in held.items():
        is_asleep = model.state is State.ASLEEP
        amounts = rest_of(model, model.gpus) if is_asleep else _awake(model, space)
        amount = amounts.get(device, 0)
        if device in _alone(model, space) and not is_asleep:
            said.append(f"{_holder(other, model, room.now)} has all of it until it is measured")
        elif amount:
            said.append(f"{_holder(other, model, room.now)} holds {size(amount)}")
    if others := space.others.get(device, 0):
        said.append(f"{size(others)} are held by other programs")
    return ", ".join(said)


def _awake(model: Snapshot, space: Space) -> Mapping[str, int]:
    return amounts_of(model.need, model.gpus, space)[0]


def _alone(model: Snapshot, space: Space) -> frozenset[str]:
    return amounts_of(model.need, model.gpus, space)[1]


def _holder(name: str, model: Snapshot, now: float) -> str:
    if model.pin:
        return _pinned(name, model.pin, now)
    return f"'{name}' ({model.left} could not be ended)"


def _pinned(name: str, pin: Pin, now: float) -> str:
    holder = f"'{name}' (lease of {pin.holder}" if pin.holder else f"'{name}' ({pin.reason}"
    reason = f": {pin.reason}" if pin.holder and pin.reason else ""
    ends = f", for {seconds(round(pin.until - now))} more" if pin.until < inf else ""
    return f"{holder}{reason}{ends})"
