"""How a model server stands at one moment, as everything but its own task sees it.

Owns the facts that decisions are made from. The states themselves, and the steps between them, are
in `table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import attrs

from supervisor.states.footprint import UNMEASURED, Footprint
from supervisor.states.habits import NO_HABITS, Habits
from supervisor.states.pins import Pin
from supervisor.states.table import ENDED, HOLDS_MEMORY, ON_THE_WAY_OUT, Event, State, Wish

WEIGHT_OF_THE_NEWEST = 0.3  # of measured times, so that one slow moment of a disk fades
MEASURED = {
    Event.BECAME_READY: "start",
    Event.ENDED: "stop",
    Event.SLEPT: "sleep",
    Event.WOKE: "wake",
}


@attrs.frozen(kw_only=True)
class Costs:
    """Seconds that the steps of one model take; None for a step that was not measured yet.

    Attributes:
        counts: how often each step was measured, by its name.
        saved: seconds that all wakes together took less than starts would have taken.
    """

    start: float | None = None
    stop: float | None = None
    sleep: float | None = None
    wake: float | None = None
    counts: Mapping[str, int] = attrs.field(factory=dict)
    saved: float = 0.0

    def learn(self, done: Event, took: float) -> Costs:
        """Return the costs after one more step, which this event completed."""
        name = MEASURED.get(done)
        if name is None:
            return self
        known: float | None = getattr(self, name)
        mean = took if known is None else known + WEIGHT_OF_THE_NEWEST * (took - known)
        counts = {**self.counts, name: self.counts.get(name, 0) + 1}
        more = max(0.0, (self.start or 0.0) - took) if done is Event.WOKE else 0.0
        return attrs.evolve(self, **{name: mean}, counts=counts, saved=self.saved + more)


UNKNOWN = Costs()


def usual_costs(known: Iterable[Costs]) -> Costs:
    """Return the medians of the times that several models take for their steps."""
    both = list(known)
    return Costs(
        start=_median(one.start for one in both),
        stop=_median(one.stop for one in both),
        sleep=_median(one.sleep for one in both),
        wake=_median(one.wake for one in both),
    )


def _median(known: Iterable[float | None]) -> float | None:
    values = sorted(value for value in known if value is not None)
    if not values:
        return None
    return (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2


@attrs.frozen(kw_only=True)
class Need:
    """What a model needs to run.

    Attributes:
        gpus: the number of GPUs that it runs on.
        only: the GPUs that it must run on, if the configuration names them; the names of devices.
        known: what is known of its memory.
    """

    gpus: int = 1
    only: tuple[str, ...] = ()
    known: Footprint = UNMEASURED


ANY_GPU = Need()


@attrs.frozen
class Queue:
    """Why a server is not started yet: its place has no room for it.

    Attributes:
        why: in an operator's words; empty if the server does not wait.
        until: when the wait is expected to end, on Trio's clock; infinity if that is not known.
    """

    why: str = ""
    until: float = inf


NO_QUEUE = Queue()


@attrs.frozen(kw_only=True)
class Snapshot:
    """A model server as others see it at one moment.

    Attributes:
        model: its id.
        state: its state.
        wish: what is wanted of it.
        in_flight: leases given and not yet returned.
        can_sleep: whether it makes room by sleeping.
        pid: the id of its process, if it has a process.
        handle: what its server is found by, if it has a server; see `places`.
        left: what is left of its last server and could not be ended; empty if all has ended.
        failure: why it last failed; None once it was ready again.
        leaving: whether its process was told to end; that is never taken back.
        since: when it came into its state, on Trio's clock.
        ready_since: when it last began to serve, on Trio's clock.
        has_let_in: whether a lease was given since then.
        idle_since: when its last request ended, or when it began to serve.
        costs: how long its steps take, as far as is known.
        drain_limit: seconds that its requests may delay others that waited too long; 0 is no limit.
        habits: when it is likely wanted again.
        waiting: how many requests wait for it.
        need: the memory that it takes.
        gpus: the GPUs that it was given, or is seen on; the names of devices.
        pin: why it may not be asked to make room, if that is so.
        queue: why its place does not start it yet.
    """

    model: str
    state: State = State.STOPPED
    wish: Wish = Wish.STOP
    in_flight: int = 0
    can_sleep: bool = False
    pid: int | None = None
    handle: object = None
    left: str = ""
    failure: str | None = None
    leaving: bool = False
    since: float = 0.0
    ready_since: float = 0.0
    has_let_in: bool = False
    idle_since: float = 0.0
    costs: Costs = UNKNOWN
    drain_limit: float = 0.0
    habits: Habits = NO_HABITS
    waiting: int = 0
    need: Need = ANY_GPU
    gpus: tuple[str, ...] = ()
    pin: Pin | None = None
    queue: Queue = NO_QUEUE

    @property
    def serving(self) -> bool:
        """Whether a lease may be given."""
        return self.state is State.READY and self.wish is Wish.SERVE and not self.leaving

    @property
    def claims_memory(self) -> bool:
        """Whether it holds memory, or will soon."""
        return self.state in HOLDS_MEMORY or self.wish is Wish.SERVE

    @property
    def stays(self) -> bool:
        """Whether it claims memory and is not about to free it."""
        return self.claims_memory and (self.state not in ON_THE_WAY_OUT or self.wish is Wish.SERVE)

    @property
    def is_ending(self) -> bool:
        """Whether it has a server that is ending."""
        return self.state is State.STOPPING or (self.leaving and self.state not in ENDED)

    def cost_to_serve(self, usual: Costs = UNKNOWN) -> float:
        """Return the seconds until it would serve, as far as is known.

        Args:
            usual: what other models' wakes take, for a model that was never woken. If no model was
            ever woken, a wake is assumed to cost what a start does. Only a start tells what a start
            costs.
        """
        if self.state in ENDED | {State.QUEUED, State.STARTING, State.STOPPING}:
            return self.costs.start or 0.0
        if self.state is State.READY:
            return 0.0
        return self.costs.wake or usual.wake or self.costs.start or 0.0

    def cost_to_rest(self, usual: Costs = UNKNOWN) -> float:
        """Return the seconds until it would have made room, as far as is known.

        Args:
            usual: what other models' steps take, for a model that never made room.
        """
        if self.can_sleep:
            return self.costs.sleep or usual.sleep or 0.0
        return self.costs.stop or usual.stop or 0.0
