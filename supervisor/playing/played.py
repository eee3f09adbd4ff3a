"""Model servers of a play: only states, durations, and the memory that they would hold.

Owns what a server does next when its wish or its state has changed. `simulation` decides when that
happens, and makes the wishes.
"""

from __future__ import annotations

from math import inf

import attrs

from supervisor.states.habits import NO_HABITS, Habits
from supervisor.states.pins import Pin
from supervisor.states.snapshot import ANY_GPU, Costs, Need, Snapshot
from supervisor.states.table import AT_REST, ENDED, Event, State, Wish, step


@attrs.frozen(kw_only=True)
class Durations:
    """What is played of one model: how long its steps take, in seconds, and what it needs.

    Attributes:
        start: until it serves.
        stop: until it has ended.
        sleep: until it sleeps.
        wake: from sleep until it serves.
        can_sleep: whether it makes room by sleeping.
        priority: higher goes first.
        need: its memory, if memory decides which models run together.
        pin: why it may not be asked to make room, if that is so.
    """

    start: float = 30
    stop: float = 1
    sleep: float = 1
    wake: float = 1
    can_sleep: bool = True
    priority: int = 0
    need: Need = ANY_GPU
    pin: Pin | None = None


BEGIN = {State.ASLEEP: Event.WAKE, State.STOPPED: Event.START}
DONE = {
    State.STARTING: Event.BECAME_READY,
    State.WAKING: Event.WOKE,
    State.FALLING_ASLEEP: Event.SLEPT,
    State.STOPPING: Event.ENDED,
}


@attrs.define(eq=False)
class PlayedServer:
    """A model server.

    Attributes:
        name: the name of its model.
        durations: the times and the need that are played.
        state: its state.
        wish: what is wanted of it.
        in_flight: requests that it serves.
        waiting: requests that wait for it.
        gpus: the GPUs that it was given; empty when it has ended.
        since: when it came into its state, in seconds of the play.
        ready_since: when it last began to serve.
        idle_since: when its last request ended, or when it began to serve.
        life: counts its steps; a plan for an earlier number is void.
    """

    name: str
    durations: Durations
    state: State = State.STOPPED
    wish: Wish = Wish.STOP
    in_flight: int = 0
    waiting: int = 0
    gpus: tuple[str, ...] = ()
    since: float = 0
    ready_since: float = 0
    idle_since: float = 0
    life: int = 0
    _costs: Costs = attrs.field(init=False)
    _takes: dict[State, float] = attrs.field(init=False)
    _habits: Habits = attrs.field(default=NO_HABITS, init=False)
    _unused_since: float | None = attrs.field(default=None, init=False)
    _seen: Snapshot | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        times = self.durations
        self._costs = Costs(start=times.start, stop=times.stop, sleep=times.sleep, wake=times.wake)
        self._takes = {
            State.STARTING: times.start,
            State.WAKING: times.wake,
            State.FALLING_ASLEEP: times.sleep,
            State.STOPPING: times.stop,
        }

    @property
    def is_at_rest(self) -> bool:
        """Whether it holds no memory and is not about to."""
        return self.state in AT_REST

    @property
    def is_serving(self) -> bool:
        """Whether a request may go to it."""
        return self.state is State.READY and self.wish is Wish.SERVE

    def snapshot(self) -> Snapshot:
        """Return its snapshot, which stays the same object until something has changed."""
        if self._seen is None:
            self._seen = Snapshot(
                model=self.name,
                state=self.state,
                wish=self.wish,
                in_flight=self.in_flight,
                can_sleep=self.durations.can_sleep,
                ready_since=self.ready_since,
                idle_since=self.idle_since,
                costs=self._costs,
                habits=self._habits,
                waiting=self.waiting,
                need=self.durations.need,
                gpus=self.gpus,
                pin=self.durations.pin,
            )
        return self._seen

    def ask(self, wish: Wish, gpus: tuple[str, ...] | None) -> None:
        """Say what is wanted of it, and on which GPUs it is to start, if these are chosen."""
        self.wish, self._seen = wish, None
        if gpus is not None and self.state in ENDED:
            self.gpus = gpus

    def wait(self, count: int, now: float) -> None:
        """Set the number that waits; the first ends an unused time, as in the daemon."""
        self._seen = None
        if count and not self.waiting and self._unused_since is not None and not self.in_flight:
            self._habits = self._habits.then(now - self._unused_since)
            self._unused_since = None
        self.waiting = count

    def serve(self) -> None:
        """Begin a request."""
        self._seen = None
        self.in_flight += 1

    def finish(self, now: float) -> None:
        """End a request."""
        self._seen = None
        self.in_flight -= 1
        self.idle_since = self._unused_since = now

    def lose(self) -> None:
        """Lose the server with everything that it did."""
        self._seen = None
        self.state, self.wish, self.in_flight = State.STOPPED, Wish.STOP, 0
        self.gpus, self.life = (), self.life + 1

    def step(self, event: Event, now: float) -> None:
        """Step to the state that follows."""
        self._seen = None
        self.state, self.since, self.life = step(self.state, event), now, self.life + 1
        if self.state is State.READY:
            self.ready_since = self.idle_since = now
        if self.state in ENDED and self.wish is not Wish.SERVE:
            self.gpus = ()

    def takes(self) -> float:
        """Return the seconds that its present state lasts."""
        return self._takes.get(self.state, inf)

    def next_event(self) -> Event | None:
        """Return what its task would do now."""
        if self.state in AT_REST and self.wish is Wish.SERVE:
            return BEGIN[self.state]
        if self.wish is Wish.STOP and self.state not in (State.STOPPED, State.STOPPING):
            return Event.STOP
        if self.state is State.READY and self.wish is Wish.SLEEP and not self.in_flight:
            return Event.SLEEP
        return None
