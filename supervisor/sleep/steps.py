"""The steps into sleep and out of it, and the questions that prove either: how each is taken.

Owns the limits of a step and of all steps together, and repetition. The configuration says which
steps there are. The model server decides what follows from a failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf

import attrs
import structlog
import trio

from configschema import Call, Checkpoint, Step
from supervisor.places.running import RunningServer
from supervisor.processes import cudacheckpoint
from supervisor.processes.commands import run_told
from supervisor.sleep.readiness import SLOWEST_ANSWER, pause_after
from supervisor.states.durations import seconds

Caller = Callable[[Call], Awaitable[str | None]]
"""Makes one HTTP step; returns None if it succeeded, else what the server did instead."""

BARELY = 0.1  # share of the time of some steps that earlier steps may take
LONGEST_OPTIONAL = 10.0  # seconds for a step that may fail and has no limit of its own

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.frozen(kw_only=True)
class StepLimits:
    """Seconds that steps may take.

    Attributes:
        whole: for all steps together.
        call: for an HTTP step without a limit of its own.
        run: for a command without a limit of its own.
        until: when the whole sleep or wake must be over, on Trio's clock.
        optional: how many steps may fail, and must leave the others their time.
    """

    whole: float
    call: float
    run: float
    until: float = inf
    optional: int = 0


@attrs.frozen
class Steps:
    """Takes steps for one process of one model.

    Attributes:
        model: its id.
        server: the server that they are taken for.
        call: makes one HTTP request.
        env: the environment of the commands.
        hear: takes what the commands write.
        done: called after each step with its name and its seconds.
    """

    model: str
    server: RunningServer
    call: Caller
    env: Mapping[str, str]
    hear: Callable[[bytes], None]
    done: Callable[[str, float], None] = lambda _, __: None

    async def take(self, steps: Sequence[Step], limits: StepLimits) -> str | None:
        """Take steps up to the first that fails; return how it failed, in a sentence, or None."""
        trials = [_Trial(step, partial(self._once, step)) for step in steps]
        limits = attrs.evolve(limits, optional=sum(one.optional for one in steps))
        under_way: _Trial | None = None
        over = trio.current_time() + limits.whole
        with trio.CancelScope(deadline=min(over, limits.until)):
            for under_way in trials:
                began = trio.current_time()
                failure = await under_way.within(limits)
                self.done(under_way.step.name, trio.current_time() - began)
                if failure and not under_way.step.optional:
                    return failure
                if failure:
                    text = f"<{self.model}> {failure}; llamadoze skips this optional step"
                    log.info(text, model=self.model, reason=failure)
            return None
        if under_way and limits.until < over - limits.whole * BARELY:
            return under_way.cut_off()
        together = "" if len(steps) == 1 else ", the limit of all steps"
        return f"{under_way.timed_out(limits.whole)}{together}" if under_way else None

    async def _once(self, step: Step) -> str | None:
        if isinstance(step, Call):
            return await self.call(step)
        if isinstance(step, Checkpoint):
            pids = await self.server.processes()
            return await self._run(cudacheckpoint.command(step.action, pids))
        return await self._run(step.command.for_process(self.server.pid))

    async def _run(self, argv: Sequence[str]) -> str | None:
        argv = self.server.command(argv)
        return await run_told(argv, env=self.env, on_output=self.hear)


@attrs.define(eq=False)
class _Trial:
    """A step that is tried, once or again and again; `last` is its last failure."""

    step: Step
    attempt: Callable[[], Awaitable[str | None]]
    last: str | None = attrs.field(default=None, init=False)

    async def within(self, limits: StepLimits) -> str | None:
        usual = limits.call if isinstance(self.step, Call) else limits.run
        if self.step.optional:
            usual = min(usual, LONGEST_OPTIONAL, limits.whole / 2 / limits.optional)
        limit = self.step.limit or usual
        with trio.move_on_after(limit):
            await (self._until_right(limit) if self.step.repeat else self._once())
            return f"{self.step.name} {self.last}" if self.last else None
        return self.timed_out(limit)

    def timed_out(self, limit: float) -> str:
        last = f" ({self.last})" if self.last else ""
        return f"{self.step.name} timed out after {seconds(limit)}{last}"

    def cut_off(self) -> str:
        last = f" ({self.last})" if self.last else ""
        return f"{self.step.name} had not succeeded when the whole sleep or wake timed out{last}"

    async def _once(self) -> None:
        self.last = await self.attempt()

    async def _until_right(self, limit: float) -> None:
        # A question that is accepted and never answered is asked again, unless its operator gave it
        # a time limit. A step that does something may take its whole limit.
        asks = isinstance(self.step, Call) and self.step.method == "GET"
        longest = SLOWEST_ANSWER if asks and self.step.limit is None else limit
        began = trio.current_time()
        while (failure := await self._attempt_within(longest)) is not None:
            self.last = failure
            await trio.sleep(pause_after(trio.current_time() - began))
        self.last = None

    async def _attempt_within(self, limit: float) -> str | None:
        with trio.move_on_after(limit):
            return await self.attempt()
        return f"no answer within {seconds(limit)}"
