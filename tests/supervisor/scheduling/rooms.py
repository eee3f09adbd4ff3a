"""Machines and models for decisions by memory, and a separate account of what is held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs

from supervisor.room.space import HOST, Space
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Decision, Demand, Patience
from supervisor.scheduling.turns import decide
from supervisor.states.footprint import Footprint
from supervisor.states.snapshot import Need, Snapshot
from supervisor.states.table import HOLDS_MEMORY, State, Wish

GIB = 1 << 30
AS_WISHED = {
    State.READY: Wish.SERVE,
    State.STARTING: Wish.SERVE,
    State.WAKING: Wish.SERVE,
    State.ASLEEP: Wish.SLEEP,
    State.FALLING_ASLEEP: Wish.SLEEP,
}


def machine(*gpus: float, host: float = 512, others: Mapping[str, float] | None = None) -> Space:
    """Return the space of GPUs g0, g1 and so on of these sizes, in GiB."""
    whole = {f"g{number}": int(size * GIB) for number, size in enumerate(gpus)}
    held = {device: int(amount * GIB) for device, amount in (others or {}).items()}
    return Space(whole={**whole, HOST: int(host * GIB)}, others=held)


def known(
    *gpus: float, host: float | None = 0, rest: float = 0, host_rest: float = 0, **more: Any
) -> Footprint:
    """Return what is known of a model that was measured, in GiB."""
    return Footprint(
        gpus=tuple(int(one * GIB) for one in gpus),
        host=None if host is None else int(host * GIB),
        gpus_asleep=tuple(int(rest * GIB) for _ in gpus if rest),
        host_asleep=int(host_rest * GIB),
        lives=1,
        **more,
    )


def standing(
    name: str,
    footprint: Footprint | None = None,
    state: State = State.STOPPED,
    on: str = "",
    **more: Any,
) -> Snapshot:
    """Return a model that can sleep; without a footprint nothing is known of it.

    Args:
        name: its id.
        footprint: what is known of its memory.
        state: its state, which is also what was wished.
        on: its GPUs, with blanks between them.
        **more: other facts; ``count`` and ``only`` say which GPUs it needs.
    """
    need = Need(
        gpus=more.pop("count", 1),
        only=tuple(more.pop("only", "").split()),
        known=footprint or Footprint(),
    )
    facts = {"can_sleep": True, "wish": AS_WISHED.get(state, Wish.STOP), **more}
    return Snapshot(model=name, state=state, gpus=tuple(on.split()), need=need, **facts)


def ready(name: str, footprint: Footprint | None = None, on: str = "g0", **more: Any) -> Snapshot:
    """Return a model that serves."""
    return standing(name, footprint, State.READY, on, **more)


def asleep(name: str, footprint: Footprint | None = None, on: str = "g0", **more: Any) -> Snapshot:
    """Return a model that sleeps."""
    return standing(name, footprint, State.ASLEEP, on, **more)


def by_name(models: Iterable[Snapshot]) -> dict[str, Snapshot]:
    return {model.model: model for model in models}


def decided(
    space: Space,
    *models: Snapshot,
    wanted: Collection[str],
    now: float = 1000,
    since: float = 0,
    max_wait: float = 10,
    **priorities: int,
) -> Decision:
    """Decide for the models that are wanted; by default they have waited too long."""
    standing_by_name = by_name(models)
    demands = [
        Demand(model=name, since=since + place, priority=priorities.get(name, 0))
        for place, name in enumerate(wanted)
    ]
    room = ByMemory(standing_by_name, space, now, max_wait)
    patience = Patience(max_wait=max_wait)
    return decide(demands, standing_by_name, room, patience, now)


# A separate account of what each model holds on each device, as the documentation says.


@attrs.frozen
class Holding:
    """What one model holds.

    Attributes:
        amounts: bytes by device.
        whole: GPUs on which no other model may be awake; the host on a machine without a GPU.
    """

    amounts: Mapping[str, int]
    whole: frozenset[str]


def awake_on(model: Snapshot, gpus: tuple[str, ...], space: Space) -> Holding:
    """Return what is promised to a model that is awake on some GPUs."""
    footprint = model.need.known
    sizes = {HOST: footprint.host or 0}
    whole: frozenset[str] = frozenset()
    if gpus and (footprint.is_short or footprint.gpus in (None, ())):
        whole = frozenset(gpus)
    elif gpus:
        assert footprint.gpus
        for place, gpu in enumerate(gpus):
            sizes[gpu] = footprint.gpus[min(place, len(footprint.gpus) - 1)]
    elif not space.gpus and (footprint.is_short or footprint.host is None):
        whole = frozenset({HOST})
    return Holding({one: min(size, space.whole.get(one, 0)) for one, size in sizes.items()}, whole)


def asleep_on(model: Snapshot) -> Holding:
    """Return what a model still holds asleep."""
    footprint = model.need.known
    left = dict(zip(model.gpus, footprint.gpus_asleep or (), strict=False))
    return Holding({HOST: footprint.host_asleep or 0, **left}, frozenset())


def holding_now(model: Snapshot, space: Space) -> Holding:
    """Return what a model holds in its state; a model that moves counts as awake."""
    if model.state in HOLDS_MEMORY:
        return awake_on(model, model.gpus, space)
    return asleep_on(model) if model.state is State.ASLEEP else Holding({}, frozenset())


def beyond(holdings: Collection[Holding], space: Space) -> set[str]:
    """Return the devices on which more is promised than there is."""
    return {
        device
        for device, size in space.free_for_models.items()
        if sum(one.amounts.get(device, 0) for one in holdings) > size
    }
