"""One model server: the task that owns its process and is the only writer of its state.

Owns how a process comes and goes, and what follows from its end. What happens while there is one is
in `life`; who should run is decided elsewhere and arrives as a wish.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from configschema import Limits, Model
from supervisor.model.birth import Adoption, Birth, NoProcess, Start
from supervisor.model.life import Life
from supervisor.model.reasons import LINES_IN_A_REASON, Ending, failure_told
from supervisor.model.resting import Wanted
from supervisor.model.usage import Usage
from supervisor.processes.child import Child
from supervisor.processes.logs import LogRing
from supervisor.sleep.actions import Actions
from supervisor.sleep.contact import Contact
from supervisor.sleep.sleeping import Sleeping
from supervisor.sleep.trust import FULL_TRUST
from supervisor.states.backoff import NO_BACKOFF, Backoff
from supervisor.states.durations import seconds
from supervisor.states.journal import SILENT, Journal
from supervisor.states.racing import innermost
from supervisor.states.snapshot import UNKNOWN, Snapshot
from supervisor.states.standing import Standing
from supervisor.states.table import AT_REST, ENDED, Event, State, Wish
from supervisor.succession.records import Record

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class ModelServer:
    """A model server and its state.

    Attributes:
        model: what to run.
        limits: how long each step may take, in seconds.
        contact: how it is reached.
        log_file: what its process writes to, so that it can outlive the daemon; None is a pipe.
        inherited: a process of an earlier daemon, to begin with.
        journal: told what happens to it.
        on_change: called after every change of its state.
        on_failure: called with the reason when it fails while it is wanted.
        output: what it and its commands wrote last.
        wanted: what others want of it, and who uses it.
        at: where it stands; written by its own task only.
        sleeping: how it sleeps, and how far that is trusted.
        backoff: when it may start again after it has failed.
    """

    model: Model
    limits: Limits
    contact: Contact
    log_file: Path | None = None
    inherited: Record | None = None
    journal: Journal = SILENT
    on_change: Callable[[], None] = lambda: None
    on_failure: Callable[[str], None] = lambda _: None
    output: LogRing = attrs.field(factory=LogRing, init=False)
    wanted: Wanted = attrs.field(init=False)
    at: Standing = attrs.field(init=False)
    sleeping: Sleeping = attrs.field(init=False)
    backoff: Backoff = attrs.field(default=NO_BACKOFF, init=False)
    _child: Child | None = attrs.field(default=None, init=False)
    _next: tuple[Model, Limits] | None = attrs.field(default=None, init=False)
    _employment: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @at.default
    def _nowhere(self) -> Standing:
        return Standing(self.model.id, self.snapshot, lambda: self.on_change(), self.journal)

    @sleeping.default
    def _not_slept_yet(self) -> Sleeping:
        return Sleeping(self.at.tell)

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
        return self.at.state in AT_REST and self.wanted.wish is not Wish.SERVE

    @property
    def _actions(self) -> Actions:
        return Actions(self.model, self.limits, self.contact, self.output)

    @property
    def is_serving(self) -> bool:
        """Whether a lease may be given; the same as its snapshot's `serving`."""
        wanted = self.wanted
        ready = self.at.state is State.READY and wanted.wish is Wish.SERVE
        return ready and not wanted.told_to_end.is_set()

    # What others may do: look, wish, hold a lease, wait.

    def snapshot(self) -> Snapshot:
        """Return how it stands now."""
        return Snapshot(
            model=self.model.id,
            state=self.at.state,
            wish=self.wanted.wish,
            in_flight=self.usage.in_flight,
            can_sleep=self.can_sleep,
            pid=self.at.pid,
            failure=self.at.failure,
            leaving=self.wanted.told_to_end.is_set(),
            ready_since=self.at.ready_since,
            idle_since=self.usage.idle_since,
            costs=self.at.costs,
            drain_limit=self.limits.drain,
        )

    @property
    def can_sleep(self) -> bool:
        """Whether it makes room by sleeping: it knows how, and that is trusted."""
        return self.model.can_sleep and self.sleeping.trust.holds

    @property
    def held_back(self) -> float:
        """The seconds that it may not start yet, because it has failed."""
        failed = self.at.state is State.FAILED
        return max(0.0, self.backoff.until - trio.current_time()) if failed else 0.0

    def forgive(self) -> None:
        """Let it sleep and start again, whatever has failed before."""
        self.sleeping.trust, self.backoff = FULL_TRUST, NO_BACKOFF

    def start_at_once(self) -> None:
        """Let its next start not wait, whatever has failed before."""
        self.backoff = NO_BACKOFF

    def wish(self, wish: Wish) -> None:
        """Say what is wanted of it now.

        SLEEP and DRAIN wait for the leases to end. STOP does not, and ends the present process
        whatever is wished after it; a later SERVE starts a new one. Where the process has to end
        for a change, it does so after its leases, whatever else is wished.
        """
        is_final = self._next is not None and self.at.state is State.READY
        self.wanted.ask(Wish.DRAIN if is_final and wish is not Wish.STOP else wish)

    def change(self, model: Model, limits: Limits, why_replaced: str | None) -> None:
        """Let other settings hold: now, or after the present process if that must be replaced."""
        if (why_replaced or self._next) and self.at.state not in ENDED:
            self._next = model, limits
            if why_replaced:
                text = f"Stopping process when its requests have ended: {why_replaced}"
                self.at.tell("info", text, reason=why_replaced)
            self.wish(Wish.DRAIN)
        else:
            self._apply(model, limits, fresh=why_replaced is not None)

    def retire(self, reason: str) -> None:
        """End the present process after its leases, for good."""
        self.change(self.model, self.limits, reason)

    def _apply(self, model: Model, limits: Limits, *, fresh: bool) -> None:
        self._next = None
        self.model, self.limits = model, limits
        self.wanted.change(limits)
        if fresh:
            self.at.costs = UNKNOWN

    def dismiss(self) -> None:
        """End its task; there must be no process any more."""
        self._employment.cancel()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Wait for one of these states; return how it stood in it, even if it has moved on."""
        return await self.at.reached(states)

    def cut(self) -> None:
        """Let its process have no grace when it ends."""
        if self._child is not None:
            self._child.cut()

    @property
    def logs(self) -> bool:
        """Whether its process writes to a file, and so could outlive the daemon."""
        return self._child is not None and self._child.can_be_let_go

    def let_go(self) -> bool:
        """Let its process live on when the daemon ends, if it can; return whether it does."""
        child = self._child
        if not child or not self.logs or self.at.state not in (State.READY, State.ASLEEP):
            return False
        child.let_go()
        return True

    # The task: one life after the other.

    async def run(self) -> None:
        """Follow the wishes for as long as the daemon runs; cancel it to end the process."""
        with self._employment:
            if self.inherited:
                record, file = self.inherited, self.log_file
                await self._live_once(Adoption(record, self.limits, file, self.at, self.wanted))
            while True:
                await self.wanted.until_start()
                await self._live_once(Start(self.model, self.limits, self.log_file, self.at))

    async def _live_once(self, birth: Birth) -> None:
        """Have a process, keep it while it is wanted, and see it gone."""
        self.wanted.begin_life()
        self.sleeping.begin_life()
        self.at.served = None
        self.output.clear()  # what its predecessor said explains nothing of this one
        ending = Ending()
        try:
            ending = await self._live(birth)
        except* Exception as errors:  # a fault of ours ends this model, not the daemon
            log.exception(f"<{self.model.id}> Internal error", model=self.model.id)
            ending = Ending(f"internal error: {innermost(errors)!r}", failed=True)
        finally:
            if self._child and self._child.is_let_go:
                self.at.tell("info", "Process lives on; the next llamadoze can adopt it")
            else:
                self._finish(ending)

    async def _live(self, birth: Birth) -> Ending:
        try:
            async with birth.process(self.output.write) as child:
                self._has(child)
                birth.announce()
                return await self._own(child)
        except NoProcess as error:
            return birth.failed(str(error))

    def _has(self, child: Child) -> None:
        self._child = child
        child.ask = partial(self._ask_to_stop, child)
        self.at.has(child.pid)

    async def _own(self, child: Child) -> Ending:
        """Let a process live until it ends, or is to end."""
        try:
            life = Life(child, lambda: self._actions, self.at, self.wanted, self.sleeping)
            return await life.run()
        finally:
            if not child.is_let_go:
                self.at.begin_end()

    def _finish(self, ending: Ending) -> None:
        """The process is gone: say why, keep the reason, and step to where this leaves us."""
        self.at.begin_end()
        if self._child and self._child.was_killed:
            grace = seconds(self.limits.unload)
            self.at.tell("warning", f"Process did not end within {grace} and was killed")
        if self._child:
            ending = ending.seen_in(self._child)
        self.usage.end_life()
        if self._next is not None:
            self._apply(*self._next, fresh=True)
        self.at.failure = ending.reason
        if ending.failed:
            self._fail(ending)
        else:
            if self.at.served is not None:
                self.backoff = NO_BACKOFF
            self.at.step(Event.ENDED, "Process stopped in")
        self._child, self.at.pid = None, None

    def _fail(self, ending: Ending) -> None:
        reason = ending.with_output(self.output.tail(LINES_IN_A_REASON))
        now = trio.current_time()
        self.backoff = self.backoff.failed(now, self.at.served or 0.0, self.limits.backoff)
        message = failure_told(reason, self.backoff, now)
        self.at.tell("error", message, reason=reason, failures=self.backoff.failures)
        self.at.failure = reason
        if self.wanted.wish is Wish.SERVE and not (ending.retried and self.backoff.is_short(now)):
            self.on_failure(reason)
        self.wanted.wish = Wish.STOP
        self.at.step(Event.GAVE_UP)

    async def _ask_to_stop(self, child: Child) -> None:
        if not self.model.cmd_stop:
            child.terminate()
        elif failure := await self._actions.ask_to_stop(child.pid):
            self.at.report_failure(failure, "killing the process after its grace")

    def _tell_of_idleness(self, what: str, limit: float) -> None:
        self.at.tell("info", f"{what}, TTL of {seconds(limit)} reached", timeout_s=limit)
