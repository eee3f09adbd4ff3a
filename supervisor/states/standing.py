"""The state of one model server: the one place where it is written, and what is logged of it.

Owns the state, the time of its last change, what is known of the steps' durations, and the list of
those who wait for a state. The model server decides which step is taken, and why.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio

from supervisor.states.durations import seconds
from supervisor.states.journal import SILENT, Journal
from supervisor.states.snapshot import NO_QUEUE, UNKNOWN, Costs, Queue, Snapshot
from supervisor.states.table import ENDED, Event, State, step
from supervisor.states.watching import Watchers

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Standing:
    """The state of one model server.

    Attributes:
        model: its id.
        snapshot: returns all that is known of the model server.
        on_change: called after every step.
        journal: told of every step and every failure.
        state: its present state.
        pid: the id of its process, if it has a process.
        handle: what its server is found by, if it has a server.
        left: what is left of its last server and could not be ended, in an operator's words.
        failure: why it last failed; None once it was ready again.
        ready_since: when it last began to serve, on Trio's clock.
        served: seconds that its present process has served; None if it was never ready.
        costs: how long its steps take.
        taken: what was done to its server in its present state, and the seconds of each.
        share: how much of the present step is done, 0 to 1; None if its server does not tell.
        queue: why its place does not start it yet.
    """

    model: str
    snapshot: Callable[[], Snapshot]
    on_change: Callable[[], None]
    journal: Journal = SILENT
    state: State = attrs.field(default=State.STOPPED, init=False)
    pid: int | None = attrs.field(default=None, init=False)
    handle: object = attrs.field(default=None, init=False)
    left: str = attrs.field(default="", init=False)
    failure: str | None = attrs.field(default=None, init=False)
    ready_since: float = attrs.field(default=0.0, init=False)
    served: float | None = attrs.field(default=None, init=False)
    costs: Costs = attrs.field(default=UNKNOWN, init=False)
    taken: list[tuple[str, float]] = attrs.field(factory=list, init=False)
    share: float | None = attrs.field(default=None, init=False)
    queue: Queue = attrs.field(default=NO_QUEUE, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _watchers: Watchers = attrs.field(factory=Watchers, init=False)

    @property
    def since(self) -> float:
        """When it came into its state, on Trio's clock."""
        return self._since

    def hear(self, share: float | None) -> None:
        """Note how much of the present step is done, if that is known; the next step clears it."""
        self.share = share

    def note_queue(self, queue: Queue) -> None:
        """Note why it waits for its place, and log the reason."""
        if queue.why != self.queue.why:
            self.tell("info", f"Queued: {queue.why}", reason=queue.why)
        self.queue = queue
        self._watchers.tell(self.snapshot())
        self.on_change()

    def note_taken(self, name: str, took: float) -> None:
        """Note what was done to its server, and the seconds that it took."""
        self.taken.append((name, took))

    def step(self, event: Event, done: str | None = None) -> None:
        """Apply an event; `done` names what the event completed, for the log."""
        took = trio.current_time() - self._since
        if self.state is State.READY:
            self.served = (self.served or 0.0) + took
        self.state = step(self.state, event)
        self.costs = self.costs.learn(event, took)
        self._since, self.share, self.queue = trio.current_time(), None, NO_QUEUE
        if done:
            self.tell("info", f"{done} {seconds(took)}", duration_s=round(took, 3))
        else:
            self.tell("debug", f"State is {self.state.value}")
        self.journal.stepped(self.model, event, self.state, took)
        self.taken = []
        self._watchers.tell(self.snapshot())
        self.on_change()

    def has(self, pid: int | None, handle: object) -> None:
        """Note the server before anything else happens: it must be known if the daemon dies."""
        self.pid, self.handle = pid, handle
        if self.state not in ENDED:  # the state file already has a server that is taken over
            self.on_change()

    def knows(self, handle: object) -> None:
        """Note what else is known of the server by now; the next step reports it."""
        self.handle = handle

    def has_nothing(self) -> None:
        """Note that there is no server any more; the next step reports it."""
        self.pid = self.handle = None

    def note_left(self, left: str) -> None:
        """Note what could not be ended, or that nothing is left any more."""
        self.left = left
        self._watchers.tell(self.snapshot())
        self.on_change()

    def begin(self, event: Event, steps: str, limit: float) -> None:
        """Step to a state in which something is done, and log it."""
        self.step(event)
        self.tell("info", f"Executing {steps} (timeout: {seconds(limit)})", timeout_s=limit)

    def open(self, event: Event, done: str | None = None) -> None:
        """Step to READY: leases may be given."""
        self.failure = None
        self.ready_since = trio.current_time()
        self.served = self.served or 0.0
        self.step(event, done)

    def begin_end(self) -> None:
        """Step to STOPPING, once, however the end came."""
        if self.state in ENDED:  # it failed before its first step
            self.step(Event.START)
        if self.state is not State.STOPPING:
            self.step(Event.STOP)

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Wait for one of these states; return the snapshot taken then, even if it moved on."""
        if self.state in states:
            return self.snapshot()
        return await self._watchers.reached(states)

    def tell(self, level: str, message: str, **facts: object) -> None:
        """Write an operator's line."""
        pid = {"pid": self.pid} if self.pid else {}
        known = {"model": self.model, "state": self.state.value, **pid, **facts}
        getattr(log, level)(f"<{self.model}> {message}", **known)

    def report_failure(self, failure: str, remedy: str) -> None:
        """Log what failed in the present state, and what llamadoze does next."""
        took = round(trio.current_time() - self._since, 3)
        self.journal.failed(self.model, self.state, failure)
        self.tell("error", f"{failure}, {remedy}", reason=failure, duration_s=took)
