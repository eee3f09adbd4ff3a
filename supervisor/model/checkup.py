"""Whether a model server is well while it serves: it is asked when nothing comes from it any more.

Owns when it is asked, and what its answers mean. `life` decides what follows.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from supervisor.model.usage import Usage
from supervisor.places.addresses import shown_address
from supervisor.sleep.actions import Actions

LOOKS_EVERY = 3.0  # seconds between looks whether a used server has sent anything
WATCHED_EVERY = 10.0  # seconds between checks of a server that is watched and idle
MOST_FAILURES = 3  # checks that may fail in a row while nothing comes from the server
BETWEEN_QUESTIONS = 1.0  # seconds between the checks of a suspected server


@attrs.define(eq=False)
class Checkup:
    """The checks of one model server.

    Attributes:
        usage: who uses it, and how often something came from it.
        watched: returns whether it is checked even while it is idle.
    """

    usage: Usage
    watched: Callable[[], bool]
    _failures: int = attrs.field(default=0, init=False)
    _next_check: float = attrs.field(default=0.0, init=False)

    async def until_ill(self, actions: Callable[[], Actions]) -> str | None:
        """Return why the server must be replaced, or None if something has put it to sleep."""
        self._failures, self._next_check = 0, trio.current_time() + WATCHED_EVERY
        while True:
            heard, was_used = self.usage.heard, self.usage.in_flight > 0
            with trio.move_on_after(LOOKS_EVERY):
                await self.usage.suspicion.wait()
            if self.usage.suspicion.is_set():
                if failure := await self._questioned(actions()):
                    return failure
            elif self.usage.heard != heard:
                self._failures = 0
            elif self.usage.in_flight and was_used:
                if await actions().sleeps_already():
                    return None
            elif failure := await self._watch(actions()):
                return failure

    async def _watch(self, actions: Actions) -> str | None:
        """Check an idle server now and then; return what is wrong after several failures."""
        if self.usage.in_flight or not self.watched() or trio.current_time() < self._next_check:
            return None
        self._next_check = trio.current_time() + WATCHED_EVERY
        return await self._is_ill(actions)

    async def _questioned(self, actions: Actions) -> str | None:
        """Check a suspected server; return what is wrong if it answers no one."""
        self._failures, heard = 0, self.usage.heard
        for _ in range(MOST_FAILURES):
            if failure := await self._is_ill(actions):
                return failure
            if not self._failures or self.usage.heard != heard:
                break
            await trio.sleep(BETWEEN_QUESTIONS)
        self.usage.suspicion = trio.Event()
        return None

    async def _is_ill(self, actions: Actions) -> str | None:
        if await actions.server.is_gone():
            return f"nobody listens at {shown_address(actions.model)} any more"
        failure = await actions.is_well()
        self._failures = self._failures + 1 if failure else 0
        if self._failures < MOST_FAILURES:
            return None
        return f"its check failed {self._failures} times in a row: {failure}"
