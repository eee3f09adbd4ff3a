"""One process of a model server while it lives: made ready, used, put to sleep, woken.

Owns the order of these steps, and the way a process ends. The model server starts it and sees it
gone. All of this runs in the model server's task.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import attrs
import trio

from supervisor.model.checkup import Checkup
from supervisor.model.ending import KeptSlots
from supervisor.model.reasons import OOM, Ending
from supervisor.model.resting import Wanted
from supervisor.places.running import RunningServer
from supervisor.sleep.actions import Actions, summary
from supervisor.sleep.sleeping import Sleeping
from supervisor.states.durations import seconds
from supervisor.states.racing import race
from supervisor.states.standing import Standing
from supervisor.states.table import BETWEEN_SLEEP_AND_WAKE, Event, State, Wish

SEEN_WITHIN = 0.05  # seconds in which an ending process closes its connections and is reaped
SERVING = frozenset({State.READY})
MOVING = frozenset(State) - SERVING
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, None)
"""Exit statuses of a killed process: as the kernel has it, as a shell or engine does, unknown."""
TOLD_EVERY = 15.0  # seconds between log lines of a start that takes long


@attrs.frozen
class Life:
    """The life of a server.

    Attributes:
        server: the server.
        actions: returns what can be done to it, with the present limits.
        at: the model's state.
        wanted: what others want of the model.
        sleeping: how it sleeps, and how far that is trusted.
        checkup: checks whether it is well while it serves.
        slots: its prompt caches.
    """

    server: RunningServer
    actions: Callable[[], Actions]
    at: Standing
    wanted: Wanted
    sleeping: Sleeping
    checkup: Checkup
    slots: KeptSlots = attrs.field(init=False)

    @slots.default
    def _nothing_kept_yet(self) -> KeptSlots:
        return KeptSlots.of(self.server, self.actions)

    async def run(self) -> Ending:
        """Let the server serve until it ends, or is told to end."""
        ending: Ending = await race(self._serve, self._exit, self._unwanted, self._checked)
        if ending.failed:
            self.slots.forget()  # an ill server does not answer, and others wait for its end
        return ending

    async def _serve(self) -> Ending:
        """Make the model ready, then let it sleep and wake as wanted, until a step fails."""
        if self.at.state is State.STARTING:
            if failure := await self._bring_up():
                return Ending(failure, failed=True)
        else:
            await self.server.landed()  # it was adopted
            self.at.knows(self.server.handle)
            if self.at.state is State.READY:
                await self.slots.begin()
        while True:
            if self.at.state is State.READY:
                if failure := await self.wanted.until_rest_is_due():
                    return self._report(failure, "falling back to Stop()")
                if ending := await self._rest():
                    return ending
            if not self.wanted.usage.in_flight:
                await self.wanted.until_serve()
            if ending := await self._wake():
                return ending

    async def _rest(self) -> Ending | None:
        """Let the model sleep, unless it sleeps already; return why its server ends instead."""
        if self.wanted.found_asleep:
            self.wanted.found_asleep = False
            self.slots.forget()
            self.at.step(Event.FOUND_ASLEEP)
            self.at.tell("warning", FOUND_ASLEEP)
            return None
        if self.wanted.wish is Wish.DRAIN or not self._may_sleep:
            self.wanted.told_to_end.set()
            return Ending()
        return await self._fall_asleep()

    async def _bring_up(self) -> str | None:
        """Wait until the server is ready, or found asleep; return why it is neither."""
        actions = self.actions()
        if self.server.was_there and await actions.sleeps_already(actions.limits.check):
            self.at.step(Event.FOUND_ASLEEP)
            self.at.tell("info", "The server runs already, and sleeps")
            return None
        failure = await race(self._become_ready, self._tell_of_loading)
        if failure is None:
            self.at.knows(self.server.handle)
            await self.slots.restore()
            self._open(Event.BECAME_READY, "Model ready in")
        return failure

    async def _become_ready(self) -> str | None:
        return await self.actions().become_ready()

    async def _tell_of_loading(self) -> str | None:
        """Log at intervals that a start goes on, with the server's last output."""
        limit, passed = self.actions().limits.ready, 0.0
        while True:
            await trio.sleep(TOLD_EVERY)
            passed += TOLD_EVERY
            last = " | ".join(self.actions().output.tail(1))
            text = f"Still loading, {passed:.0f} of {seconds(limit)}"
            self.at.tell("info", f"{text}; last output: {last}" if last else text)

    async def _checked(self) -> Ending:
        """Check the server while it serves; return the ending if it is ill."""
        while True:
            await self.at.reached(SERVING)
            failure = await race(self._until_ill, self._until_it_moves)
            if failure:
                return Ending(failure, failed=True)

    async def _until_ill(self) -> str | None:
        failure = await self.checkup.until_ill(self.actions)
        while failure is None and self.actions().naps:  # a request wakes it: it may load now
            failure = await self.checkup.until_ill(self.actions)
        if failure is None:
            self.wanted.find_asleep()
            await self.at.reached(MOVING)
        return failure

    async def _until_it_moves(self) -> str | None:
        await self.at.reached(MOVING)
        return None

    def _report(self, failure: str, remedy: str) -> Ending:
        self.at.report_failure(failure, remedy)
        return Ending(failure)

    async def _exit(self) -> Ending:
        status = await self.server.exited()
        state = self.at.state
        reason = f"{self.server.end_told(status)} while {state.value}"
        is_here = self.server.landing is None  # on another machine, an unknown end is no kill
        if state is State.ASLEEP and (status in KILLED if is_here else status in KILLED[:2]):
            reason += OOM
        if state in (State.FALLING_ASLEEP, State.WAKING):
            self.sleeping.failed(self.actions(), reason)
        elif state is State.ASLEEP:
            self.sleeping.died(self.actions(), reason)
        no_crash = state in BETWEEN_SLEEP_AND_WAKE or self.server.was_displaced
        return Ending(reason, failed=True, retried=no_crash, crashed=not no_crash)

    async def _unwanted(self) -> Ending:
        await self.wanted.told_to_end.wait()
        return Ending()

    async def _fall_asleep(self) -> Ending | None:
        """Put the model to sleep; return why it must be stopped instead, or None."""
        actions = self.actions()
        steps = summary(actions.model.recipe.sleep, "sleep")
        self.at.begin(Event.SLEEP, steps, actions.limits.sleep)
        await self.slots.save()
        self.slots.forget()  # even if the sleep fails: they are saved
        slept = await self.sleeping.fall_asleep(actions, self.wanted.usage.cut_at)
        if slept.failure:
            return await self._failed(slept.failure, "falling back to Stop()")
        self.wanted.usage.cut_at = None
        self.at.step(Event.SLEPT, "Model sleep completed in")
        if slept.worn and not self.wanted.usage.waiting:
            self.at.tell("warning", f"Stopping process, as nobody uses it now: {slept.worn}")
            return Ending()
        return None

    async def _wake(self) -> Ending | None:
        """Wake the model; return why it must be restarted instead, or None."""
        actions = self.actions()
        self.at.begin(Event.WAKE, summary(actions.model.recipe.wake, "wake"), actions.limits.wake)
        if failure := await race(
            partial(self.sleeping.wake, actions), partial(self._hear_progress, actions)
        ):
            return await self._failed(failure, "restarting process")
        await self.slots.restore()
        self._open(Event.WOKE, "Model wake completed in")
        return None

    async def _hear_progress(self, actions: Actions) -> str | None:
        """Read how much of a wake is done, while it lasts."""
        try:
            await actions.contact.progress(actions.model, self.at.hear)
        # Whatever goes wrong here: only an estimate needs it, and the wake goes on.
        except Exception as error:
            self.at.tell("debug", f"The progress of its load cannot be read: {error!r}")
        self.at.hear(None)  # the last number is out of date
        return await trio.sleep_forever()

    async def _failed(self, failure: str, remedy: str) -> Ending:
        """Count a failed sleep or wake, unless the process ends: then that was the cause."""
        with trio.move_on_after(SEEN_WITHIN) as moment:
            await self.server.exited()
        if not moment.cancelled_caught:
            await trio.sleep_forever()  # the other task in the race reports the end
        ending = self._report(failure, remedy)
        self.sleeping.failed(self.actions(), failure)
        return ending

    @property
    def _may_sleep(self) -> bool:
        return self.actions().model.can_sleep and self.sleeping.trust.holds

    def _open(self, event: Event, done: str) -> None:
        """Begin to serve, and to count the idle time."""
        self.wanted.usage.begin_service()
        self.at.open(event, done)


FOUND_ASLEEP = (
    "Something else put the server to sleep: its requests got no answer, and it says that it "
    "sleeps. llamadoze wakes it"
)
