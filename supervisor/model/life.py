"""One process of a model server while it lives: brought up, used, put to sleep, woken.

Owns the order of these, and which way a process ends. It is started and seen gone by the model
server, in whose task all of this runs.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from supervisor.model.reasons import Ending
from supervisor.model.resting import Wanted
from supervisor.processes.child import Child
from supervisor.processes.commands import describe_exit
from supervisor.sleep.actions import Actions, summary
from supervisor.sleep.sleeping import Sleeping
from supervisor.states.racing import race
from supervisor.states.standing import Standing
from supervisor.states.table import BETWEEN_SLEEP_AND_WAKE, Event, State, Wish

SEEN_WITHIN = 0.05  # seconds in which a process that ends closes its connections and is reaped


@attrs.frozen
class Life:
    """The life of a process.

    Attributes:
        child: the process.
        actions: returns what can be done to it, with the limits that hold now.
        at: where the model stands.
        wanted: what others want of it.
        sleeping: how it sleeps, and how far that is trusted.
    """

    child: Child
    actions: Callable[[], Actions]
    at: Standing
    wanted: Wanted
    sleeping: Sleeping

    async def run(self) -> Ending:
        """Let the process serve until it ends, or is to end."""
        return await race(self._serve, self._exit, self._unwanted)

    async def _serve(self) -> Ending:
        """Bring the model up, then let it sleep and wake as wanted, until a step fails."""
        if self.at.state is State.STARTING:
            if failure := await self.actions().become_ready():
                return Ending(failure, failed=True)
            self._open(Event.BECAME_READY, "Model ready in")
        while True:
            if self.at.state is State.READY:
                if failure := await self.wanted.until_rest_is_due():
                    return self._report(failure, "falling back to Stop()")
                if self.wanted.wish is Wish.DRAIN or not self._may_sleep:
                    self.wanted.told_to_end.set()
                    return Ending()
                if ending := await self._fall_asleep():
                    return ending
            await self.wanted.until_serve()
            if ending := await self._wake():
                return ending

    def _report(self, failure: str, remedy: str) -> Ending:
        self.at.report_failure(failure, remedy)
        return Ending(failure)

    async def _exit(self) -> Ending:
        status = await self.child.exited()
        reason = f"process {describe_exit(status)} while {self.at.state.value}"
        if self.at.state in (State.FALLING_ASLEEP, State.WAKING):
            self.sleeping.failed(self.actions(), reason)
        retried = self.at.state in BETWEEN_SLEEP_AND_WAKE
        return Ending(reason, failed=True, retried=retried)

    async def _unwanted(self) -> Ending:
        await self.wanted.told_to_end.wait()
        return Ending()

    async def _fall_asleep(self) -> Ending | None:
        """Put the model to sleep; return why it must be stopped instead, or None."""
        actions = self.actions()
        steps = summary(actions.model.recipe.sleep, "sleep")
        self.at.begin(Event.SLEEP, steps, actions.limits.sleep)
        slept = await self.sleeping.fall_asleep(actions, self.child.pid)
        if slept.failure:
            return await self._failed(slept.failure, "falling back to Stop()")
        self.at.step(Event.SLEPT, "Model sleep completed in")
        if slept.worn and not self.wanted.usage.waiting:
            self.at.tell("warning", f"Stopping process, as nobody uses it now: {slept.worn}")
            return Ending()
        return None

    async def _wake(self) -> Ending | None:
        """Wake the model; return why it must be started afresh instead, or None."""
        actions = self.actions()
        self.at.begin(Event.WAKE, summary(actions.model.recipe.wake, "wake"), actions.limits.wake)
        if failure := await self.sleeping.wake(actions, self.child.pid):
            return await self._failed(failure, "restarting process")
        self._open(Event.WOKE, "Model wake completed in")
        return None

    async def _failed(self, failure: str, remedy: str) -> Ending:
        """Count a sleep or a wake that failed, unless the process ends: then that was its cause."""
        with trio.move_on_after(SEEN_WITHIN) as moment:
            await self.child.exited()
        if not moment.cancelled_caught:
            await trio.sleep_forever()  # the other rival tells of the end
        ending = self._report(failure, remedy)
        self.sleeping.failed(self.actions(), failure)
        return ending

    @property
    def _may_sleep(self) -> bool:
        return self.actions().model.can_sleep and self.sleeping.trust.holds

    def _open(self, event: Event, done: str) -> None:
        """Begin to serve, and to count the idle time."""
        self.wanted.usage.restart_idle_time()
        self.at.open(event, done)
