"""The messages to a client while its model starts or wakes, if ``sendLoadingState`` is set.

Owns when a message is sent, and its words. `dialects` has the form that each API needs.
"""

from __future__ import annotations

from math import ceil

import attrs
import trio

from proxy.forwarding.answer import Answer
from proxy.naming.dialects import Note
from supervisor import State, Supervisor, SupervisorError
from supervisor.model.server import ModelServer
from supervisor.scheduling.forecast import Forecast
from supervisor.scheduling.queueing import Turn
from supervisor.states.racing import race

RULE = "━" * 5
WORTH_TELLING = 0.2  # share of the last estimate by which a new one must differ to be sent
IN_MINUTES = 120  # seconds; longer times are shown in minutes
WORDS = {
    State.QUEUED: "queued",
    State.STARTING: "starting",
    State.WAKING: "waking up",
    State.FALLING_ASLEEP: "falling asleep, will wake up afterwards",
    State.STOPPING: "stopping",
    State.ASLEEP: "asleep, waiting for room",
    State.STOPPED: "not running yet",
    State.FAILED: "not running, because it failed",
    State.READY: "in use, waiting for the turn of other requests to end",
}


@attrs.define(eq=False)
class Narration:
    """Tells the client how a model starts or wakes, until the model serves or fails.

    Attributes:
        supervisor: knows the model's state.
        answer: the answer to write to.
        server: the model's server.
        name: the model's name in the request.
        over: set when the model's own answer, or a failure, comes next.
        failed: whether a failure comes next.
    """

    supervisor: Supervisor
    answer: Answer
    server: ModelServer
    name: str
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    failed: bool = attrs.field(default=False, init=False)
    _said: tuple[State, int, str] | None = attrs.field(default=None, init=False)
    _foretold: int | None = attrs.field(default=None, init=False)
    _ready: Forecast | None = attrs.field(default=None, init=False)

    async def run(self) -> None:
        """Send a message now, at every change, and at intervals. Do not cancel this: half an event
        cannot be taken back."""
        if self.over.is_set():  # refused at once, which is answered with a status
            return
        began = trio.current_time()
        await self.answer.begin_events()
        await self._say(f"{RULE}\nllamadoze loading model: {self.name}\n")
        while not self.over.is_set():
            await self._say(self._news() or ".")
            with trio.move_on_after(self.answer.dialect.every):
                await race(self.over.wait, self._another_state)
        if not self.failed:
            await self._say(f"\nDone! ({trio.current_time() - began:.2f}s)\n{RULE}\n")

    async def _another_state(self) -> None:
        said = set() if self._said is None else {self._said[0]}
        await self.server.reached(frozenset(State) - said)

    def _news(self) -> str:
        """Return what has changed since the last call, as text for people."""
        now = self._standing()
        ready = self._ready = self.supervisor.ready_in(self.server.model.id)
        if now == self._said:
            return f"\n{about(ready)}" if ready and self._has_moved(ready) else ""
        self._said, self._foretold = now, _whole_seconds(ready) if ready else None
        state, place, why = now
        queue = f" (queue position: #{place})" if place else ""
        reason = f": {why}" if why else ""
        return f"\n{WORDS[state]}{queue}{reason}{f', {about(ready)}' if ready else ''}"

    def _has_moved(self, ready: Forecast) -> bool:
        """Whether an estimate differs much from the last one sent. If so, note it as sent."""
        said, now = self._foretold, _whole_seconds(ready)
        moved = said is None or abs(now - said) > WORTH_TELLING * said
        if moved:
            self._foretold = now
        return moved

    def _standing(self) -> tuple[State, int, str]:
        at = self.server.at
        return at.state, self.supervisor.place(self.server.model.id), at.queue.why

    async def _say(self, text: str) -> None:
        state, place, _ = self._standing()
        note = Note(
            request=self.answer.call.request_id,
            model=self.name,
            state=state.value,
            place=place,
            text=text,
            ready_in=round(self._ready.seconds, 1) if self._ready else None,
        )
        if self.answer.dialect.note is not None:
            await self.answer.write(self.answer.dialect.note(note))


def _whole_seconds(ready: Forecast) -> int:
    return max(1, ceil(ready.seconds))


def about(ready: Forecast) -> str:
    """Return when a model will be ready, as text for people, with a note if it is uncertain."""
    left = _whole_seconds(ready)
    time = f"{left} s" if left < IN_MINUTES else f"{round(left / 60)} min"
    return f"ready in about {time}{' (measured once)' if ready.measured == 1 else ''}"


@attrs.define(eq=False)
class Narrated:
    """The way to a lease, with a narration while the client waits."""

    _turn: Turn
    _narration: Narration

    async def __aenter__(self) -> ModelServer:
        failure: SupervisorError | None = None
        entered = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._narration.run)
                try:
                    server = await self._turn.__aenter__()
                    entered = True
                except SupervisorError as error:
                    failure = error
                    self._narration.failed = True
                self._narration.over.set()
        except BaseException:  # the lease was given, and no block will give it back
            if entered:
                self._turn.leave()
            raise
        if failure is not None:
            raise failure
        return server

    async def __aexit__(self, *error: object) -> None:
        await self._turn.__aexit__(*error)
