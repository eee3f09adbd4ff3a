"""The task of one model server: it begins with what is there, and goes on from life to life.

Owns where a model's first server comes from, and what other settings change. One life is in
`lives`. What others may do is in `server`.
"""

from __future__ import annotations

import attrs

from supervisor.model.birth import Adoption
from supervisor.model.ending import guarded
from supervisor.model.lives import Lives
from supervisor.model.reasons import Ending
from supervisor.places.handles import ElsewhereHandle, Handle, StepHandle
from supervisor.places.running import Order
from supervisor.sleep.actions import environment_of
from supervisor.states.table import State

THERE_ALREADY = "server that was there already"


@attrs.define(eq=False)
class Service(Lives):
    """A model and its servers, from the first to the last."""

    async def run(self) -> None:
        """Follow the wishes for as long as the daemon runs; cancel it to end the server."""
        with self._employment:
            await guarded(self.model.id, self._take_what_is_there)
            while True:
                await self.wanted.until_start()
                await self._live_once(self._start())

    async def _take_what_is_there(self) -> None:
        """Begin with a server that runs already, of an earlier daemon or of nobody."""
        place = self.places.of(self.model)
        if self.inherited:
            handle, state = self.inherited
            if state is State.STOPPING:
                await self._wait_for_what_was_left(handle)
                self.inherited = None
                return
            is_elsewhere = isinstance(handle, ElsewhereHandle)
            whose = THERE_ALREADY if is_elsewhere else "process of an earlier llamadoze"
            # A server on another machine could not be asked before it was taken over.
            is_asked = isinstance(handle, StepHandle) and self.model.recipe.asleep
            asleep = None if is_asked else state is State.ASLEEP
            adoption = self._adoption(handle, asleep, whose)
            adoption.stood = state
            await self._live_once(adoption)
            self.inherited = None
        elif found := await place.find(self.model):
            await self._live_once(self._adoption(found, None, THERE_ALREADY))

    async def _wait_for_what_was_left(self, handle: Handle) -> None:
        """Wait for what an earlier daemon could not end."""
        env = environment_of(self.model)
        order = Order(model=self.model, limits=self.limits, env=env, hear=self.output.write)
        self._server = self.places.left_over(order, handle)
        self.at.knows(handle)
        self.at.begin_end()
        await guarded(self.model.id, self._until_nothing_is_left)
        self._finish(Ending())

    def _adoption(self, handle: Handle, asleep: bool | None, whose: str) -> Adoption:
        return Adoption(
            *(self.model, self.limits, self.places.of(self.model), handle, self.log_file),
            *(self.at, self.wanted, self._actions, asleep, whose),
            moved=self._move,
        )
