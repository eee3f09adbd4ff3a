"""Who uses a model now, and since when nobody does.

Owns the leases, the count of those that wait for a lease, the idle time, and the way to wait for a
condition that others bring about. The model server decides what follows.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from supervisor.states.habits import NO_HABITS, Habits


@attrs.define(eq=False)
class Stir:
    """A change that several tasks wait for: each task whose condition is true goes on."""

    _waiting: dict[trio.Event, Callable[[], bool]] = attrs.field(factory=dict, init=False)

    def __call__(self) -> None:
        """Wake the tasks whose condition is true now."""
        for event, condition in self._waiting.items():
            if condition():
                event.set()

    async def when(self, condition: Callable[[], bool]) -> None:
        """Return in a step in which the condition is true. After a race, check again."""
        while not condition():
            event = trio.Event()
            self._waiting[event] = condition
            try:
                await event.wait()
            finally:
                del self._waiting[event]


@attrs.define(eq=False)
class Usage:
    """The use of one model, from one process to the next.

    Attributes:
        stir: called at every change.
        in_flight: leases on the present process, given and not yet returned.
        waiting: how many requests wait for a lease.
        idle_since: when it was last used.
        cut_at: when a request of the present process was last cut off, since the process was last
        known to be idle; None if none was.
        heard: how often something came from the present process.
        suspicion: set when the process has left a request without an answer.
        habits: how long it was idle between its uses.
        has_let_in: whether a lease was given since it began to serve.
    """

    stir: Stir
    in_flight: int = attrs.field(default=0, init=False)
    waiting: int = attrs.field(default=0, init=False)
    idle_since: float = attrs.field(default=0.0, init=False)
    cut_at: float | None = attrs.field(default=None, init=False)
    heard: int = attrs.field(default=0, init=False)
    suspicion: trio.Event = attrs.field(factory=trio.Event, init=False)
    habits: Habits = attrs.field(default=NO_HABITS, init=False)
    has_let_in: bool = attrs.field(default=False, init=False)
    _life: int = attrs.field(default=0, init=False)
    _unused_since: float | None = attrs.field(default=None, init=False)

    def restart_idle_time(self) -> None:
        """Count the idle time from now."""
        self.idle_since = trio.current_time()

    def begin_service(self) -> None:
        """Begin to serve: nobody has used the model since."""
        self.has_let_in = False
        self.restart_idle_time()

    def end_life(self) -> None:
        """The process is gone: leases that are still out have no effect any more."""
        self._life += 1
        self.in_flight = 0
        self.cut_at, self.suspicion = None, trio.Event()
        self.stir()

    def suspect(self) -> None:
        """Ask for a check of the process."""
        self.suspicion.set()

    def note_wanted(self) -> None:
        """Note how long the model was unused, before it is used or waited for again."""
        if self._unused_since is not None and not self._in_use():
            self.habits = self.habits.then(trio.current_time() - self._unused_since)
            self._unused_since = None

    def take(self) -> Lease:
        """Count one more user of the present process."""
        self.in_flight += 1
        self.has_let_in = True
        return Lease(self, self._life)

    def give_back(self, life: int, *, cut: bool) -> None:
        """Count one user less, if it was a user of the present process."""
        if life == self._life:
            self.in_flight -= 1
            if cut:
                self.cut_at = trio.current_time()
            self.restart_idle_time()
            self._unused_since = self.idle_since
            if not self.in_flight:  # no task waits for one lease of several to end
                self.stir()

    def add_waiter(self) -> None:
        """Count one more that waits: a model that is waited for is not idle."""
        self.waiting += 1

    def remove_waiter(self) -> None:
        """Count one less that waits, whether it was served or gave up."""
        self.waiting -= 1
        self.restart_idle_time()
        self.stir()

    def is_idle_for(self, seconds: float) -> bool:
        """Whether the model was unused for this long; a long request is use. 0 is never."""
        return bool(seconds) and not self._in_use() and self._left(seconds) <= 0

    async def idle_for(self, seconds: float) -> None:
        """Return when the model was unused for this long. After a race, check again."""
        if not seconds:
            await trio.sleep_forever()
        while not self.is_idle_for(seconds):
            await self.stir.when(lambda: not self._in_use())
            await trio.sleep(max(0, self._left(seconds)))

    def idle_seconds(self) -> float:
        """Return for how long the model was unused."""
        return 0.0 if self._in_use() else trio.current_time() - self.idle_since

    def _left(self, seconds: float) -> float:
        return self.idle_since + seconds - trio.current_time()

    def _in_use(self) -> bool:
        return self.in_flight > 0 or self.waiting > 0


@attrs.frozen
class Lease:
    """The right to use one process of a model; given back once."""

    usage: Usage
    life: int

    def give_back(self, *, cut: bool = False) -> None:
        """End the use; `cut` says that the server may still work on it."""
        self.usage.give_back(self.life, cut=cut)
