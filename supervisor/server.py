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

from configschema import Limits, Model, is_reachable
from supervisor.actions import Actions, Caller, summary
from supervisor.child import CannotStart, Child, open_child
from supervisor.commands import describe_exit
from supervisor.durations import seconds
from supervisor.logs import LogRing
from supervisor.ports import is_free
from supervisor.racing import innermost, race
from supervisor.readiness import Probe
from supervisor.snapshot import UNKNOWN, Costs, Snapshot
from supervisor.states import AT_REST, ENDED, Event, State, Wish, step
from supervisor.usage import Usage
from supervisor.wanted import Wanted
from supervisor.watching import Watchers

LINES_IN_A_REASON = 3

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.frozen
class Ending:
    """Why a process's life is over; `failed` tells its waiters so instead of starting it anew."""

    reason: str | None = None
    failed: bool = False


@attrs.define(eq=False)
class ModelServer:
    """A model server and its state.

    Attributes:
        model: what to run.
        limits: how long each step may take, in seconds.
        probe: how to ask whether it is ready.
        call: how to make an HTTP step into sleep or out of it.
        on_change: called after every change of its state.
        on_failure: called with the reason when it fails while it is wanted.
        output: what it and its commands wrote last.
        wanted: what others want of it, and who uses it.
    """

    model: Model
    limits: Limits
    probe: Probe
    call: Caller
    on_change: Callable[[], None] = lambda: None
    on_failure: Callable[[str], None] = lambda _: None
    output: LogRing = attrs.field(factory=LogRing, init=False)
    _state: State = attrs.field(default=State.STOPPED, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _ready_since: float = attrs.field(default=0.0, init=False)
    _costs: Costs = attrs.field(default=UNKNOWN, init=False)
    _next: tuple[Model, Limits] | None = attrs.field(default=None, init=False)
    _employment: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    wanted: Wanted = attrs.field(init=False)
    _child: Child | None = attrs.field(default=None, init=False)
    _failure: str | None = attrs.field(default=None, init=False)
    _watchers: Watchers = attrs.field(factory=Watchers, init=False)

    @wanted.default
    def _nothing_wanted(self) -> Wanted:
        return Wanted(self.limits, self._tell_of_idleness)

    @property
    def usage(self) -> Usage:
        """The leases on it, and since when it is idle."""
        return self.wanted.usage

    @property
    def is_at_rest(self) -> bool:
        """Whether it neither holds memory nor is about to."""
        return self._state in AT_REST and self.wanted.wish is not Wish.SERVE

    @property
    def _actions(self) -> Actions:
        return Actions(self.model, self.limits, self.probe, self.call, self.output)

    # What others may do: look, wish, hold a lease, wait.

    def snapshot(self) -> Snapshot:
        """Return how it stands now."""
        return Snapshot(
            model=self.model.id,
            state=self._state,
            wish=self.wanted.wish,
            in_flight=self.usage.in_flight,
            can_sleep=self.model.can_sleep,
            pid=self._child.pid if self._child else None,
            failure=self._failure,
            leaving=self.wanted.told_to_end.is_set(),
            ready_since=self._ready_since,
            costs=self._costs,
            drain_limit=self.limits.drain,
        )

    def wish(self, wish: Wish) -> None:
        """Say what is wanted of it now.

        SLEEP and DRAIN wait for the leases to end. STOP does not, and ends the present process
        whatever is wished after it; a later SERVE starts a new one.
        """
        self.wanted.ask(wish)

    def change(self, model: Model, limits: Limits, *, replace: bool) -> None:
        """Let other settings hold: now, or after the present process if it must be replaced."""
        if (replace or self._next) and self._state not in ENDED:
            self._next = model, limits
            self.wish(Wish.DRAIN)
        else:
            self._apply(model, limits)

    def _apply(self, model: Model, limits: Limits) -> None:
        self._next = None
        self.model, self.limits = model, limits
        self.wanted.change(limits)

    def dismiss(self) -> None:
        """End its task; there must be no process any more."""
        self._employment.cancel()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Wait for one of these states; return how it stood in it, even if it has moved on."""
        if self._state in states:
            return self.snapshot()
        return await self._watchers.reached(states)

    def cut(self) -> None:
        """Let its process have no grace when it ends."""
        if self._child is not None:
            self._child.cut()

    # The task: one life after the other.

    async def run(self) -> None:
        """Follow the wishes for as long as the daemon runs; cancel it to end the process."""
        with self._employment:
            while True:
                await self.wanted.until_start()
                await self._live_once()

    async def _live_once(self) -> None:
        """Start the process, keep it while it is wanted, and see it gone."""
        self.wanted.begin_life()
        self.output = LogRing()  # what its predecessor said explains nothing of this one
        self._step(Event.START)
        ending = Ending()
        try:
            ending = await self._own_process()
        except* Exception as errors:  # a fault of ours ends this model, not the daemon
            log.exception(f"<{self.model.id}> Internal error", model=self.model.id)
            ending = Ending(f"internal error: {innermost(errors)!r}", failed=True)
        finally:
            self._begin_end()
            self._finish(ending)

    async def _own_process(self) -> Ending:
        if reason := self._obstacle():
            return Ending(reason, failed=True)
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

    def _obstacle(self) -> str | None:
        """Return why a start would be for nothing, or None."""
        if not self.model.cmd:
            return "cmd is empty"
        if not is_reachable(self.model.proxy):
            return "proxy leads nowhere: it must be an address such as http://127.0.0.1:8000"
        if self.model.port is not None and not is_free(self.model.port):
            taken = f"another process listens on its port {self.model.port}"
            return f"{taken}; end that process or change startPort"
        return None

    def _finish(self, ending: Ending) -> None:
        """The process is gone: say why, keep the reason, and step to where this leaves us."""
        if self._child and self._child.was_killed:
            grace = seconds(self.limits.unload)
            self._tell("warning", f"Process did not end within {grace} and was killed")
        self.usage.end_life()
        if self._next is not None:
            self._apply(*self._next)
            self._costs = UNKNOWN
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
        if self.wanted.wish is Wish.SERVE:
            self.on_failure(reason)
        self.wanted.wish = Wish.STOP
        self._step(Event.GAVE_UP)

    async def _serve(self, child: Child) -> Ending:
        """Bring the model up, then let it sleep and wake as wanted, until a step fails."""
        if failure := await self._actions.become_ready():
            return Ending(failure, failed=True)
        self._open(Event.BECAME_READY, "Model ready in")
        while True:
            if failure := await self.wanted.until_rest_is_due():
                self._report_failure(failure, "falling back to Stop()")
                return Ending(failure)
            if self.wanted.wish is Wish.DRAIN:
                self.wanted.told_to_end.set()
                return Ending()
            if failure := await self._fall_asleep(child):
                self._report_failure(failure, "falling back to Stop()")
                return Ending(failure)
            await self.wanted.until_serve()
            if failure := await self._wake(child):
                self._report_failure(failure, "restarting process")
                return Ending(failure)

    async def _exit_of(self, child: Child) -> Ending:
        status = await child.exited()
        return Ending(f"process {describe_exit(status)} while {self._state.value}", failed=True)

    async def _unwanted(self) -> Ending:
        await self.wanted.told_to_end.wait()
        return Ending()

    async def _fall_asleep(self, child: Child) -> str | None:
        """Put the model to sleep; return why it must be stopped instead, or None."""
        self._begin(Event.SLEEP, summary(self.model.recipe.sleep, "sleep"), self.limits.sleep)
        failure = await self._actions.sleep(child.pid)
        if failure is None:
            self._step(Event.SLEPT, "Model sleep completed in")
        return failure

    async def _wake(self, child: Child) -> str | None:
        """Wake the model; return why it must be started afresh instead, or None."""
        self._begin(Event.WAKE, summary(self.model.recipe.wake, "wake"), self.limits.wake)
        failure = await self._actions.wake(child.pid)
        if failure is None:
            self._open(Event.WOKE, "Model wake completed in")
        return failure

    async def _ask_to_stop(self, child: Child) -> None:
        if failure := await self._actions.ask_to_stop(child.pid):
            self._report_failure(failure, "killing the process after its grace")

    # The one place where the state is written, and what is said about it.

    def _step(self, event: Event, done: str | None = None) -> None:
        """Apply an event; `done` says what was completed by it, for the log."""
        took = trio.current_time() - self._since
        self._state = step(self._state, event)
        self._costs = self._costs.learn(event, took)
        self._since = trio.current_time()
        if done:
            self._tell("info", f"{done} {seconds(took)}", duration_s=round(took, 3))
        else:
            self._tell("debug", f"State is {self._state.value}")
        self._watchers.tell(self.snapshot())
        self.on_change()

    def _begin(self, event: Event, steps: str, limit: float) -> None:
        """Step to where something is done, and say so."""
        self._step(event)
        self._tell("info", f"Executing {steps} (timeout: {seconds(limit)})", timeout_s=limit)

    def _open(self, event: Event, done: str) -> None:
        """Step to READY: leases may be given, and the idle time begins."""
        self._failure = None
        self._ready_since = trio.current_time()
        self.usage.restart_idle_time()
        self._step(event, done)

    def _begin_end(self) -> None:
        """Step to STOPPING, once, whatever way the end came."""
        if self._state is not State.STOPPING:
            self._step(Event.STOP)

    def _tell(self, level: str, message: str, **facts: object) -> None:
        pid = {"pid": self._child.pid} if self._child else {}
        known = {"model": self.model.id, "state": self._state.value, **pid, **facts}
        getattr(log, level)(f"<{self.model.id}> {message}", **known)

    def _tell_of_idleness(self, what: str, limit: float) -> None:
        self._tell("info", f"{what}, TTL of {seconds(limit)} reached", timeout_s=limit)

    def _report_failure(self, failure: str, remedy: str) -> None:
        took = round(trio.current_time() - self._since, 3)
        self._tell("error", f"{failure}, {remedy}", reason=failure, duration_s=took)
