"""What is done to a model server from outside: its commands and its check, each within its limit.

Owns how the configuration's commands are run for one model. Each action returns how it failed, in
an operator's words, or None. What follows from a failure is decided by the model server's task.
"""

from __future__ import annotations

import os

import attrs
import trio

from configschema import Command, Limits, Model
from supervisor.commands import run_command, run_limited
from supervisor.durations import seconds
from supervisor.logs import LogRing
from supervisor.readiness import Probe, ReadyCheck


@attrs.frozen
class Actions:
    """The actions of one model.

    Attributes:
        model: whose.
        limits: how long each may take.
        probe: asks once whether the model is ready.
        output: takes what the commands write.
    """

    model: Model
    limits: Limits
    probe: Probe
    output: LogRing

    async def sleep(self, pid: int) -> str | None:
        """Run cmdSleep."""
        return await self._limited("cmdSleep", self.model.cmd_sleep, self.limits.sleep, pid)

    async def wake(self, pid: int) -> str | None:
        """Run cmdWake and wait until the model is ready."""
        if failure := await self._limited("cmdWake", self.model.cmd_wake, self.limits.wake, pid):
            return failure
        if failure := await self.become_ready():
            return f"after cmdWake the model was {failure}"
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
        return os.environ | dict(entry.split("=", 1) for entry in self.model.env)

    async def _limited(self, name: str, command: Command, limit: float, pid: int) -> str | None:
        return await run_limited(
            name,
            command.for_process(pid),
            limit=limit,
            env=self.environment(),
            on_output=self.output.write,
        )
