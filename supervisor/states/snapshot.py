"""How a model server stands at one moment, as everybody but its own task sees it.

Owns the facts that decisions are made from. The states themselves, and what follows which, are in
`table`.
"""

from __future__ import annotations

import attrs

from supervisor.states.table import ENDED, HOLDS_MEMORY, ON_THE_WAY_OUT, Event, State, Wish

WEIGHT_OF_THE_NEWEST = 0.3  # of measured times: one slow moment of a disk fades
MEASURED = {
    Event.BECAME_READY: "start",
    Event.ENDED: "stop",
    Event.SLEPT: "sleep",
    Event.WOKE: "wake",
}


@attrs.frozen(kw_only=True)
class Costs:
    """Seconds that the steps of one model take; None where none was measured yet."""

    start: float | None = None
    stop: float | None = None
    sleep: float | None = None
    wake: float | None = None

    def learn(self, done: Event, took: float) -> Costs:
        """Return what is known after one more step, which this event completed."""
        name = MEASURED.get(done)
        if name is None:
            return self
        known: float | None = getattr(self, name)
        mean = took if known is None else known + WEIGHT_OF_THE_NEWEST * (took - known)
        return attrs.evolve(self, **{name: mean})


UNKNOWN = Costs()


@attrs.frozen(kw_only=True)
class Snapshot:
    """A model server as others see it at one moment.

    Attributes:
        model: its id.
        state: where it stands.
        wish: what is wanted of it.
        in_flight: leases given and not yet returned.
        can_sleep: whether it makes room by sleeping.
        pid: of its process, if there is one.
        handle: what its server is found by, if there is one; see `places`.
        left: what could not be ended of its last server; nothing if all could.
        failure: why it last failed; None once it was ready again.
        leaving: whether its process was told to end; that is never taken back.
        ready_since: when it last began to serve, on Trio's clock.
        idle_since: when its last request ended, or it began to serve.
        costs: how long its steps take, as far as is known.
        drain_limit: seconds its requests may hold up others that waited too long; 0 is no limit.
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
    ready_since: float = 0.0
    idle_since: float = 0.0
    costs: Costs = UNKNOWN
    drain_limit: float = 0.0

    @property
    def serving(self) -> bool:
        """Whether a lease may be given."""
        return self.state is State.READY and self.wish is Wish.SERVE and not self.leaving

    @property
    def claims_memory(self) -> bool:
        """Whether it holds memory, or is about to."""
        return self.state in HOLDS_MEMORY or self.wish is Wish.SERVE

    @property
    def stays(self) -> bool:
        """Whether it claims memory and is not about to give it back."""
        return self.claims_memory and (self.state not in ON_THE_WAY_OUT or self.wish is Wish.SERVE)

    @property
    def cost_to_serve(self) -> float:
        """Seconds until it would serve, as far as is known."""
        if self.state in ENDED | {State.STARTING, State.STOPPING}:
            return self.costs.start or 0.0
        return 0.0 if self.state is State.READY else self.costs.wake or 0.0

    @property
    def cost_to_rest(self) -> float:
        """Seconds until it would have made room, as far as is known."""
        return (self.costs.sleep if self.can_sleep else self.costs.stop) or 0.0
