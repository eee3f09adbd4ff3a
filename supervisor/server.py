"""One model server: the task that owns its process and is the only writer of its state.

Owns the life of the process from start to end, the count of leases, sleep and wake, and what
follows when they fail. Who should run is decided elsewhere and arrives as a wish.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs
import structlog
import trio

from configschema import Limits, Model
from supervisor.actions import Actions
from supervisor.child import CannotStart, Child, open_child
from supervisor.commands import describe_exit
from supervisor.durations import seconds
from supervisor.logs import LogRing
from supervisor.ports import is_free
from supervisor.racing import race
from supervisor.readiness import Probe
from supervisor.states import Event, Snapshot, State, Wish, step

LINES_IN_A_REASON = 3

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.frozen
class Ending:
    """Why a process's life is over; `failed` tells its waiters so instead of starting it anew."""

    reason: str | None = None
    failed: bool = False


@attrs.define(eq=False)
class _Watcher:
    """Somebody waits for one of these states; `seen` is how the server stood in it."""

    states: frozenset[State]
    reached: trio.Event = attrs.field(factory=trio.Event)
    seen: Snapshot | None = None


@attrs.define(eq=False)
class ModelServer:
    """A model server and its state.

    Attributes:
        model: what to run.
        limits: how long each step may take, in seconds.
        probe: how to ask whether it is ready.
        on_change: called after every change of its state.
        on_failure: called with the reason when it fails while it is wanted.
        output: what it and its commands wrote last.
    """

    model: Model
    limits: Limits
    probe: Probe
    on_change: Callable[[], None] = lambda: None
    on_failure: Callable[[str], None] = lambda _: None
    output: LogRing = attrs.field(factory=LogRing, init=False)
    _state: State = attrs.field(default=State.STOPPED, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _wish: Wish = attrs.field(default=Wish.STOP, init=False)
    _in_flight: int = attrs.field(default=0, init=False)
    _idle_since: float = attrs.field(default=0.0, init=False)
    _child: Child | None = attrs.field(default=None, init=False)
    _failure: str | None = attrs.field(default=None, init=False)
    _told_to_end: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _watchers: list[_Watcher] = attrs.field(factory=list, init=False)

    @property
    def _actions(self) -> Actions:
        return Actions(self.model, self.limits, self.probe, self.output)

    # What others may do: look, wish, hold a lease, wait.

    def snapshot(self) -> Snapshot:
        """Return how it stands now."""
        return Snapshot(
            model=self.model.id,
            state=self._state,
            wish=self._wish,
            in_flight=self._in_flight,
            can_sleep=self.model.can_sleep,
            pid=self._child.pid if self._child else None,
            failure=self._failure,
            leaving=self._told_to_end.is_set(),
        )

    def wish(self, wish: Wish) -> None:
        """Say what is wanted of it now.

        SLEEP waits for the leases to end. STOP does not, and ends the present process whatever is
        wished after it; a later SERVE starts a new one.
        """
        self._wish = wish
        if wish is Wish.STOP:
            self._told_to_end.set()
        self._stir()

    def take_lease(self) -> None:
        """Count one more user. Only while it is serving."""
        self._in_flight += 1

    def return_lease(self) -> None:
        """Count one user less."""
        self._in_flight -= 1
        self._idle_since = trio.current_time()
        self._stir()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Wait for one of these states; return how it stood in it, even if it has moved on."""
        if self._state in states:
            return self.snapshot()
        watcher = _Watcher(states)
        self._watchers.append(watcher)
        try:
            await watcher.reached.wait()
        finally:
            self._watchers.remove(watcher)
        return watcher.seen or self.snapshot()

    def cut(self) -> None:
        """Let its process have no grace when it ends."""
        if self._child is not None:
            self._child.cut()

    # The task: one life after the other.

    async def run(self) -> None:
        """Follow the wishes for as long as the daemon runs; cancel it to end the process."""
        while True:
            await self._when(lambda: self._wish is Wish.SERVE)
            await self._live_once()

    async def _live_once(self) -> None:
        """Start the process, keep it while it is wanted, and see it gone."""
        self._told_to_end = trio.Event()
        self.output = LogRing()  # what its predecessor said explains nothing of this one
        self._step(Event.START)
        ending = Ending()
        try:
            ending = await self._own_process()
        except* Exception as errors:  # a fault of ours ends this model, not the daemon
            log.exception(f"<{self.model.id}> Internal error", model=self.model.id)
            ending = Ending(f"internal error: {errors.exceptions[0]!r}", failed=True)
        finally:
            self._begin_end()
            self._finish(ending)

    async def _own_process(self) -> Ending:
        if not self.model.cmd:
            return Ending("cmd is empty", failed=True)
        if self.model.port is not None and not is_free(self.model.port):
            taken = f"another process listens on its port {self.model.port}"
            return Ending(f"{taken}; end that process or change startPort", failed=True)
        ending = Ending()
        try:
            async with open_child(
                self.model.cmd.argv,
                env=self._actions.environment(),
                on_output=self.output.write,
                grace=self.limits.unload,
            ) as child:
                self._child = child
                if self.model.cmd_stop:
                    child.ask = partial(self._ask_to_stop, child)
                limit = self.limits.ready
                self._tell("info", f"Starting process (timeout: {seconds(limit)})", timeout_s=limit)
                try:
                    ending = await race(
                        partial(self._serve, child), partial(self._exit_of, child), self._unwanted
                    )
                finally:
                    self._begin_end()
        except CannotStart as error:
            return Ending(f"cmd cannot be started: {error}", failed=True)
        return ending

    def _finish(self, ending: Ending) -> None:
        """The process is gone: say why, keep the reason, and step to where this leaves us."""
        if self._child and self._child.was_killed:
            grace = seconds(self.limits.unload)
            self._tell("warning", f"Process did not end within {grace} and was killed")
        self._failure = ending.reason
        if ending.failed:
            self._fail(f"{ending.reason}")
        else:
            self._step(Event.ENDED, "Process stopped in")
        self._child = None

    def _fail(self, reason: str) -> None:
        if last := " | ".join(self.output.tail(LINES_IN_A_REASON)):
            reason = f"{reason}; last output: {last}"
        message = f"Model failed: {reason}. The next request starts it again"
        self._tell("error", message, reason=reason)
        self._failure = reason
        if self._wish is Wish.SERVE:
            self.on_failure(reason)
        self._wish = Wish.STOP
        self._step(Event.GAVE_UP)

    async def _serve(self, child: Child) -> Ending:
        """Bring the model up, then let it sleep and wake as wanted, until a step fails."""
        if failure := await self._actions.become_ready():
            return Ending(failure, failed=True)
        self._open(Event.BECAME_READY, "Model ready in")
        while True:
            await self._until_rest_is_due()
            if failure := await self._fall_asleep(child):
                self._report_failure(failure, "falling back to Stop()")
                return Ending(failure)
            await self._when(lambda: self._wish is Wish.SERVE)
            if failure := await self._wake(child):
                self._report_failure(failure, "restarting process")
                return Ending(failure)

    async def _exit_of(self, child: Child) -> Ending:
        status = await child.exited()
        return Ending(f"process {describe_exit(status)} while {self._state.value}", failed=True)

    async def _unwanted(self) -> Ending:
        await self._told_to_end.wait()
        return Ending()

    async def _fall_asleep(self, child: Child) -> str | None:
        """Put the model to sleep; return why it must be stopped instead, or None."""
        self._begin(Event.SLEEP, "cmdSleep", self.limits.sleep)
        failure = await self._actions.sleep(child.pid)
        if failure is None:
            self._step(Event.SLEPT, "Model sleep completed in")
        return failure

    async def _wake(self, child: Child) -> str | None:
        """Wake the model; return why it must be started afresh instead, or None."""
        self._begin(Event.WAKE, "cmdWake", self.limits.wake)
        failure = await self._actions.wake(child.pid)
        if failure is None:
            self._open(Event.WOKE, "Model wake completed in")
        return failure

    async def _ask_to_stop(self, child: Child) -> None:
        if failure := await self._actions.ask_to_stop(child.pid):
            self._report_failure(failure, "killing the process after its grace")

    # When the model may rest.

    async def _until_rest_is_due(self) -> None:
        """Return in the very step in which the model should sleep and has no lease."""
        while not self._rest_is_due():
            await race(partial(self._when, self._rest_is_due), self._idle_too_long)

    def _rest_is_due(self) -> bool:
        return self._wish is Wish.SLEEP and self._in_flight == 0

    async def _idle_too_long(self) -> None:
        """Let the model rest when nobody has used it for its ttl; a long request is use."""
        if not self.limits.ttl:
            await trio.sleep_forever()
        await self._when(lambda: self._in_flight == 0)
        while (left := self._idle_since + self.limits.ttl - trio.current_time()) > 0:
            await trio.sleep(left)
            await self._when(lambda: self._in_flight == 0)
        what, rest = ("Sleeping", Wish.SLEEP) if self.model.can_sleep else ("Unloading", Wish.STOP)
        ttl = self.limits.ttl
        self._tell("info", f"{what} model, TTL of {seconds(ttl)} reached", timeout_s=ttl)
        self.wish(rest)

    # The one place where the state is written, and what is said about it.

    def _step(self, event: Event, done: str | None = None) -> None:
        """Apply an event; `done` says what was completed by it, for the log."""
        took = trio.current_time() - self._since
        self._state = step(self._state, event)
        self._since = trio.current_time()
        if done:
            self._tell("info", f"{done} {seconds(took)}", duration_s=round(took, 3))
        else:
            self._tell("debug", f"State is {self._state.value}")
        for watcher in self._watchers:
            if self._state in watcher.states and watcher.seen is None:
                watcher.seen = self.snapshot()
                watcher.reached.set()
        self.on_change()

    def _begin(self, event: Event, command: str, limit: float) -> None:
        """Step to where a command runs, and say so."""
        self._step(event)
        self._tell("info", f"Executing {command} (timeout: {seconds(limit)})", timeout_s=limit)

    def _open(self, event: Event, done: str) -> None:
        """Step to READY: leases may be given, and the idle time begins."""
        self._failure = None
        self._idle_since = trio.current_time()
        self._step(event, done)

    def _begin_end(self) -> None:
        """Step to STOPPING, once, whatever way the end came."""
        if self._state is not State.STOPPING:
            self._step(Event.STOP)

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def _when(self, condition: Callable[[], bool]) -> None:
        """Return in a step in which the condition holds."""
        while not condition():
            await self._stirred.wait()

    def _tell(self, level: str, message: str, **facts: object) -> None:
        pid = {"pid": self._child.pid} if self._child else {}
        known = {"model": self.model.id, "state": self._state.value, **pid, **facts}
        getattr(log, level)(f"<{self.model.id}> {message}", **known)

    def _report_failure(self, failure: str, remedy: str) -> None:
        took = round(trio.current_time() - self._since, 3)
        self._tell("error", f"{failure}, {remedy}", reason=failure, duration_s=took)
