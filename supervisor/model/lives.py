"""The task that owns a model's server and is the only writer of the model's state.

Owns how a server comes and goes, what follows from its end, and what is remembered for the next.
`life` is what happens while there is a server. `server` is what others may do.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from configschema import Limits, Model
from supervisor.model.birth import Birth, Start
from supervisor.model.checkup import Checkup
from supervisor.model.crowding import Crowding
from supervisor.model.ending import StopRequest, guarded, leave_to_the_next, run_alone, until_gone
from supervisor.model.known import Known
from supervisor.model.life import Life
from supervisor.model.reasons import LINES_IN_A_REASON, Ending, failure_told
from supervisor.model.resting import Wanted
from supervisor.model.surroundings import NOWHERE, Surroundings
from supervisor.model.usage import Usage
from supervisor.places.choosing import Places
from supervisor.places.containers import stop_command
from supervisor.places.handles import Handle
from supervisor.places.running import CannotRun, NotWanted, PlaceLost, RunningServer
from supervisor.processes.output import LogRing
from supervisor.sleep.actions import Actions
from supervisor.sleep.contact import Contact
from supervisor.sleep.sleeping import Sleeping
from supervisor.states.backoff import NO_BACKOFF, Backoff
from supervisor.states.causes import Cause, Why
from supervisor.states.durations import seconds
from supervisor.states.journal import SILENT, Journal
from supervisor.states.learned import Learned
from supervisor.states.racing import innermost
from supervisor.states.snapshot import Snapshot
from supervisor.states.standing import Standing
from supervisor.states.table import Event, State, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Lives:
    """A model and its servers, one at a time.

    Attributes:
        model: what to run.
        limits: how long each step may take, in seconds.
        contact: the ways to reach the server.
        places: where servers run.
        log_file: the file that its process writes to, so that it can outlive the daemon, or None.
        inherited: a server of an earlier daemon to begin with, and its state.
        journal: told what happens to the model.
        around: the other models, as far as they matter to this one.
        output: the last output of the model and its commands.
        wanted: what others want of the model, and who uses it.
        at: the model's state; only its own task writes it.
        sleeping: how it sleeps, and how far that is trusted.
        backoff: when it may start again after a failure.
        known: the memory that it takes, and where.
    """

    model: Model
    limits: Limits
    contact: Contact
    places: Places
    log_file: Path | None = None
    inherited: tuple[Handle, State] | None = None
    journal: Journal = SILENT
    around: Surroundings = NOWHERE
    output: LogRing = attrs.field(factory=LogRing, init=False)
    wanted: Wanted = attrs.field(init=False)
    at: Standing = attrs.field(init=False)
    sleeping: Sleeping = attrs.field(init=False)
    backoff: Backoff = attrs.field(default=NO_BACKOFF, init=False)
    known: Known = attrs.field(factory=Known, init=False)
    _server: RunningServer | None = attrs.field(default=None, init=False)
    _crowding: Crowding = attrs.field(init=False)
    _given_up: trio.Event = attrs.field(factory=trio.Event, init=False)
    _next: tuple[Model, Limits] | None = attrs.field(default=None, init=False)
    _employment: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @at.default
    def _nowhere(self) -> Standing:
        return Standing(self.model.id, self.snapshot, lambda: self.around.changed(), self.journal)

    @_crowding.default
    def _nothing_known(self) -> Crowding:
        return Crowding(self.at, self.around, self.known)

    @sleeping.default
    def _not_slept_yet(self) -> Sleeping:
        return Sleeping(self.at.tell)

    @wanted.default
    def _nothing_wanted(self) -> Wanted:
        return Wanted(self.limits, self._tell_of_idleness, lambda: self.known.lease is not None)

    @property
    def usage(self) -> Usage:
        """The leases on it, and since when it is idle."""
        return self.wanted.usage

    def snapshot(self) -> Snapshot:
        """Return its present snapshot."""
        return Snapshot(
            model=self.model.id,
            state=self.at.state,
            wish=self.wanted.wish,
            in_flight=self.usage.in_flight,
            can_sleep=self.can_sleep,
            pid=self.at.pid,
            handle=self.at.handle,
            left=self.at.left,
            failure=self.at.failure,
            leaving=self.wanted.told_to_end.is_set(),
            since=self.at.since,
            ready_since=self.at.ready_since,
            has_let_in=self.wanted.usage.has_let_in,
            idle_since=self.usage.idle_since,
            costs=self.at.costs,
            drain_limit=self.limits.drain,
            habits=self.usage.habits,
            waiting=self.usage.waiting,
            need=self.known.need(self.model),
            gpus=self.known.gpus,
            pin=self.known.pin(self.model),
            queue=self.at.queue,
        )

    @property
    def can_sleep(self) -> bool:
        """Whether it makes room by sleeping: it has a way to, and that is trusted."""
        return self.model.can_sleep and self.sleeping.trust.holds

    def recall(self, learned: Learned) -> None:
        """Begin with what was learned of the model before."""
        self.at.costs, self.usage.habits = learned.costs, learned.habits
        self.known.begin(self.model, learned.footprint)

    @property
    def learned(self) -> Learned:
        """What is known of the model from all its lives."""
        return Learned(self.known.footprint, self.at.costs, self.usage.habits)

    def _apply(self, model: Model, limits: Limits, *, fresh: bool) -> None:
        self._next, before = None, self.model
        self.model, self.limits = model, limits
        if not fresh:
            self._move(before)
        self.wanted.change(limits)
        if fresh:
            self.recall(self.around.learned_of(model))
            self._crowding.forget()
        else:
            self.known.change(self.model)

    def _start(self) -> Start:
        model, place = self.model.as_written, self.places.of(self.model)
        clear = partial(self._crowding.make_room, self.wanted.until_told_to_end)
        return Start(
            *(model, self.limits, place, self.log_file, self.at, clear),
            *(self.around.taken_ports, self._move, self.around.environment),
            lambda command: run_alone(command, self.model, self.output.write),
            self.wanted.until_given_up,
        )

    async def _live_once(self, birth: Birth) -> None:
        """Have a server, keep it while it is wanted, and see it gone."""
        self.wanted.begin_life()
        self.sleeping.begin_life()
        self.at.served = None
        self.output.clear()  # the output of the last process explains nothing of this one
        ending, is_over = Ending(), False
        try:
            try:
                ending = await self._live(birth)
            except* Exception as errors:  # an internal error ends this model, not the daemon
                log.exception(f"<{self.model.id}> Internal error", model=self.model.id)
                ending = Ending(f"internal error: {innermost(errors)!r}", failed=True)
            await guarded(self.model.id, self._until_nothing_is_left)
            is_over = True
        finally:
            if self._server and self._server.is_let_go:
                self.at.tell("info", "Process lives on; the next llamadoze can adopt it")
            elif self._server and self._server.left and not is_over:
                leave_to_the_next(self._server.left, self.at)
            else:
                self._finish(ending)

    async def _live(self, birth: Birth) -> Ending:
        try:
            async with birth.server(self.output.write) as server:
                self._has(server)
                birth.announce()
                return await self._own(server)
        except NotWanted:
            return Ending()
        except PlaceLost as error:
            return Ending(str(error), failed=True, retried=True, crashed=False)
        except CannotRun as error:
            return birth.failed(str(error))

    def _has(self, server: RunningServer) -> None:
        self._server = server
        if not self.model.is_elsewhere or stop_command(self.model, self.limits):
            actions = partial(self._actions, server)
            server.ask = StopRequest(server, actions, self.at).make
        self.at.has(server.pid, server.handle)

    async def _own(self, server: RunningServer) -> Ending:
        """Let a server live until it ends, or is told to end."""
        try:
            checkup = Checkup(self.usage, lambda: self.model.is_elsewhere or self.around.watched())
            actions = partial(self._actions, server)
            return await Life(server, actions, self.at, self.wanted, self.sleeping, checkup).run()
        finally:
            if not server.is_let_go:
                self.at.begin_end()

    async def _until_nothing_is_left(self) -> None:
        """Wait while something of it holds memory, unless an operator gives that up."""
        if self._server and self._server.left and not self.around.ignores_leftovers():
            self._given_up = trio.Event()
            await until_gone(self._server, self.at, self.usage.stir, self._is_given_up)

    def _is_given_up(self) -> bool:
        return self._given_up.is_set() or self.around.ignores_leftovers()

    def _finish(self, ending: Ending) -> None:
        """The server is gone: log why, keep the reason, and step to the state that follows."""
        self.at.begin_end()
        if self._server and self._server.was_killed:
            grace = seconds(self.limits.unload)
            self.at.tell("warning", f"Process did not end within {grace} and was killed")
        if self._server:
            ending = ending.seen_in(self._server)
        self.usage.end_life()
        if self._next is not None:
            self._apply(*self._next, fresh=True)
        self.at.failure = ending.reason
        if self.at.served is not None:
            self._crowding.was_good()
        self.known.footprint = self.known.footprint.rested()
        self.known.gpus = ()  # before other models hear of it, which may get these GPUs
        if ending.failed:
            self._fail(ending)
        else:
            self._end(ending)
        self._server = None
        self.at.has_nothing()

    def _end(self, ending: Ending) -> None:
        if self.at.served is not None:
            self.backoff = NO_BACKOFF
        is_wanted = bool(ending.reason) and self.wanted.wish is Wish.SERVE
        is_short = is_wanted and self._crowding.fell_short(ending.reason or "", self.output)
        if self.at.served is None and not is_short:
            self._crowding.room.start_was_broken_off()
        if self.around.are_placed_by_memory() and self.wanted.wish is Wish.SERVE:
            self.wanted.wish = Wish.STOP  # its place, and who makes room, is decided again
        self.at.step(Event.ENDED, "Process stopped in")

    def _fail(self, ending: Ending) -> None:
        reason = ending.with_output(self.output.tail(LINES_IN_A_REASON))
        now, served = trio.current_time(), self.at.served
        tries = self._tries_again(ending, reason)
        if tries:
            ending = attrs.evolve(ending, retried=True, crashed=False)
        if ending.crashed:
            self.backoff = self.backoff.failed(now, served or 0.0, self.limits.backoff)
        message = failure_told(reason, self.backoff, now)
        if not tries:  # otherwise another try follows, which was logged
            self.at.tell("error", message, reason=reason, failures=self.backoff.failures)
        self.at.failure = reason
        was_wanted = self.wanted.wish is Wish.SERVE
        waits = (ending.retried or served is not None) and self.backoff.is_short(now)
        if was_wanted and not waits:
            self.around.failed(reason)
        self.wanted.wish = Wish.STOP
        self.at.step(Event.GAVE_UP)
        if was_wanted and served is not None and ending.crashed:
            self.around.crashed()

    def _tries_again(self, ending: Ending, reason: str) -> bool:
        """Whether a failed start is tried once more, or a wake for which there was no room."""
        if self._server is None or self.wanted.wish is not Wish.SERVE:
            return False
        if self.at.served is None:
            return self._crowding.tries_again(reason, self.output)
        return ending.retried and self._crowding.fell_short(reason, self.output)

    def _move(self, model: Model) -> None:
        """Take on where the server runs; the rest of this model may be out of date by now."""
        if self.model.on_port and model.port and self.model.port != model.port:
            self.model = self.model.on_port(model.port)
        written = self.model.as_written
        if written.on_landing and model.landing:
            self.model = written.on_landing(model.landing)

    def _actions(self, server: RunningServer) -> Actions:
        return Actions(
            *(self.model, self.limits, self.contact, self.output, server), self.at.note_taken
        )

    def _tell_of_idleness(self, wish: Wish, limit: float) -> None:
        what = "Sleeping model" if wish is Wish.SLEEP else "Unloading model"
        self.at.tell("info", f"{what}, TTL of {seconds(limit)} reached", timeout_s=limit)
        key = "sleepTtl" if wish is Wish.SLEEP else "ttl"
        cause = Cause(why=Why.IDLE, text=f"idle for {seconds(limit)} ({key})")
        self.journal.asked(self.model.id, wish, cause)
