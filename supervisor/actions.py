"""What is done to a model server from outside: its commands, its HTTP steps and its check.

Owns how the configuration's steps are taken for one model, each within its limit. Each action
returns how it failed, in an operator's words, or None. What follows is not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from configschema import Call, Limits, Model, Run, Step
from supervisor.commands import run_command, run_limited
from supervisor.durations import seconds
from supervisor.logs import LogRing
from supervisor.readiness import Probe, ReadyCheck

Caller = Callable[[Call], Awaitable[str | None]]
"""Make one HTTP step; return None if it succeeded, else what the server did instead."""


@attrs.frozen
class Actions:
    """The actions of one model.

    Attributes:
        model: whose.
        limits: how long each may take.
        probe: asks once whether the model is ready.
        call: makes one HTTP request.
        output: takes what the commands write.
    """

    model: Model
    limits: Limits
    probe: Probe
    call: Caller
    output: LogRing

    async def sleep(self, pid: int) -> str | None:
        """Take the steps into sleep, up to the first that fails."""
        limits = self.limits
        return await self._take(self.model.recipe.sleep, limits.sleep, limits.sleep_call, pid)

    async def wake(self, pid: int) -> str | None:
        """Take the steps out of sleep and wait until the model is ready."""
        steps, limits = self.model.recipe.wake, self.limits
        if failure := await self._take(steps, limits.wake, limits.wake_call, pid):
            return failure
        if failure := await self.become_ready():
            return f"after {summary(steps, 'wake')} the model was {failure}"
        return None

    async def ask_to_stop(self, pid: int) -> str | None:
        """Run cmdStop; its limit is the grace it runs in."""
        argv = self.model.cmd_stop.for_process(pid)
        failure = await run_command(argv, env=self.environment(), on_output=self.output.write)
        return f"cmdStop {failure}" if failure else None

    async def become_ready(self) -> str | None:
        """Wait until the model answers its check."""
        check = ReadyCheck(self.probe, self.model)
        with trio.move_on_after(self.limits.ready) as scope:
            await check.passed()
        if scope.cancelled_caught:
            return f"not ready within {seconds(self.limits.ready)}: {check.last_answer}"
        return None

    def environment(self) -> dict[str, str]:
        """Return the daemon's environment with the model's additions."""
        return environment_of(self.model)

    async def _take(
        self, steps: Sequence[Step], limit: float, limit_of_a_call: float, pid: int
    ) -> str | None:
        for step in steps:
            if isinstance(step, Call):
                failure = await self._call(step, step.limit or limit_of_a_call)
            else:
                failure = await self._run(step, limit, pid)
            if failure:
                return failure
        return None

    async def _run(self, step: Run, limit: float, pid: int) -> str | None:
        return await run_limited(
            step.name,
            step.command.for_process(pid),
            limit=limit,
            env=self.environment(),
            on_output=self.output.write,
        )

    async def _call(self, step: Call, limit: float) -> str | None:
        failure: str | None = None
        with trio.move_on_after(limit) as scope:
            failure = await self.call(step)
        if scope.cancelled_caught:
            return f"{step.name} timed out after {seconds(limit)}"
        return f"{step.name} {failure}" if failure else None


def environment_of(model: Model) -> dict[str, str]:
    """Return the environment of a model's process and its commands."""
    pairs = (entry.partition("=") for entry in model.env)
    return os.environ | {name: value for name, equals, value in pairs if name and equals}


def summary(steps: Sequence[Step], what: str) -> str:
    """Name some steps in a few words: ``cmdSleep``, or ``2 sleep requests``."""
    if len(steps) == 1 and isinstance(steps[0], Run):
        return steps[0].name
    return f"{len(steps)} {what} request{'' if len(steps) == 1 else 's'}"
