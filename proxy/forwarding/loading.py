"""What a client reads while its model comes up, where ``sendLoadingState`` is set.

Owns when something is said and its words; the form is the API's, see `dialects`.
"""

from __future__ import annotations

import attrs
import trio

from proxy.forwarding.answer import Answer
from proxy.naming.dialects import Note
from supervisor import State, Supervisor, SupervisorError
from supervisor.model.server import ModelServer
from supervisor.scheduling.scheduler import Turn
from supervisor.states.racing import race

RULE = "━" * 5
WORDS = {
    State.STARTING: "starting",
    State.WAKING: "waking up",
    State.FALLING_ASLEEP: "falling asleep, and will wake up then",
    State.STOPPING: "stopping",
    State.ASLEEP: "asleep, waiting for room",
    State.STOPPED: "not running yet",
    State.FAILED: "not running since it failed",
    State.READY: "in use, waiting for others' turn to end",
}


@attrs.define(eq=False)
class Narration:
    """Says how a model comes up, until that is over.

    Attributes:
        supervisor: knows how it stands.
        answer: what is written to.
        server: the model's.
        name: how it was asked for.
        over: set when the model's own answer, or a failure, is next.
        failed: whether it is a failure.
    """

    supervisor: Supervisor
    answer: Answer
    server: ModelServer
    name: str
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    failed: bool = attrs.field(default=False, init=False)
    _said: tuple[State, int] | None = attrs.field(default=None, init=False)

    async def run(self) -> None:
        """Say something now, whenever there is news, and now and then. Do not cancel: half an
        event cannot be taken back."""
        if self.over.is_set():  # refused at once: that is told with a status
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
        """Return what has changed since it was asked last, for people."""
        now = self._standing()
        if now == self._said:
            return ""
        self._said = now
        state, place = now
        queue = f" (queue position: #{place})" if place else ""
        return f"\n{WORDS[state]}{queue}"

    def _standing(self) -> tuple[State, int]:
        return self.server.at.state, self.supervisor.place(self.server.model.id)

    async def _say(self, text: str) -> None:
        state, place = self._standing()
        note = Note(
            request=self.answer.call.request_id,
            model=self.name,
            state=state.value,
            place=place,
            text=text,
        )
        if self.answer.dialect.note is not None:
            await self.answer.write(self.answer.dialect.note(note))


@attrs.define(eq=False)
class Narrated:
    """The way to a lease, with a narration for as long as it takes."""

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
        except BaseException:  # who leaves now has the lease, and no block to give it back
            if entered:
                self._turn.leave()
            raise
        if failure is not None:
            raise failure
        return server

    async def __aexit__(self, *error: object) -> None:
        await self._turn.__aexit__(*error)
