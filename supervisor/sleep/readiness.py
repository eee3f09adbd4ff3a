"""When a model server that was started or woken answers its check.

Owns how often it is asked. A probe knows how to ask. The caller's cancel scope sets the limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from configschema import Model

Probe = Callable[[Model], Awaitable[str | None]]
"""Asks a model server once; returns None if it is ready, else what it said instead."""

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.1
SLOWEST_ANSWER = 5.0  # seconds; after that, an unanswered check is asked again


def pause_after(elapsed: float) -> float:
    """Return the seconds until the next question: short at first, then 0.5 % of the time so far."""
    return min(LONGEST_PAUSE, max(FIRST_PAUSE, 0.005 * elapsed))


@attrs.define(eq=False)
class ReadyCheck:
    """Asks until the answer is good; `last_answer` is the last other answer."""

    probe: Probe
    model: Model
    last_answer: str = attrs.field(default="no answer", init=False)

    async def passed(self) -> None:
        """Return when the model server is ready."""
        if self.model.check_endpoint == "none":
            return
        began = trio.current_time()
        while (answer := await self._ask()) is not None:
            self.last_answer = answer
            await trio.sleep(pause_after(trio.current_time() - began))

    async def _ask(self) -> str | None:
        with trio.move_on_after(SLOWEST_ANSWER):
            return await self.probe(self.model)
        return f"no answer within {SLOWEST_ANSWER:g}s"
