"""What is done to a model server from outside: its commands, its HTTP steps and its checks.

Owns how the configuration's steps are taken for one model, each within its limit. Each action
returns how it failed, in an operator's words, or None. What follows is not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs
import trio

from configschema import Call, Limits, Model, Step
from supervisor.processes.commands import run_command
from supervisor.processes.logs import LogRing
from supervisor.processes.memory import Held
from supervisor.sleep.contact import Contact, Token
from supervisor.sleep.proof import needs_host
from supervisor.sleep.readiness import ReadyCheck
from supervisor.sleep.steps import StepLimits, Steps
from supervisor.states.durations import seconds

LONGEST_LOOK = 1.0  # seconds that it may take to see that there is nothing to do


@attrs.frozen
class Actions:
    """The actions of one model.

    Attributes:
        model: whose.
        limits: how long each may take.
        contact: how it is reached.
        output: takes what the commands write.
    """

    model: Model
    limits: Limits
    contact: Contact
    output: LogRing

    async def sleep(self, pid: int) -> str | None:
        """Take the steps into sleep, up to the first that fails."""
        limit, limit_of_a_call = self.limits.sleep, self.limits.sleep_call
        limits = StepLimits(whole=limit, call=limit_of_a_call, run=limit)
        return await self._steps(pid).take(self.model.recipe.sleep, limits)

    async def prove_asleep(self, pid: int) -> str | None:
        """Ask the questions whose answers prove a sleep."""
        return await self._prove(self.model.recipe.asleep, pid)

    async def sleeps_already(self, pid: int) -> bool:
        """Ask once what proves a sleep, before there was one."""
        once = [attrs.evolve(one, repeat=False) for one in self.model.recipe.asleep]
        with trio.move_on_after(LONGEST_LOOK):
            return await self._prove(once, pid) is None
        return False

    async def wake(self, pid: int) -> str | None:
        """Take the steps out of sleep and wait until the model is ready."""
        steps = self.model.recipe.wake
        limit, limit_of_a_call = self.limits.wake, self.limits.wake_call
        limits = StepLimits(whole=limit, call=limit_of_a_call, run=limit)
        if failure := await self._steps(pid).take(steps, limits):
            return failure
        if failure := await self.become_ready():
            return f"after {summary(steps, 'wake')} the model was {failure}"
        return None

    async def prove_awake(self, pid: int) -> str | None:
        """Ask the questions whose answers prove a wake."""
        return await self._prove(self.model.recipe.awake, pid)

    async def _prove(self, questions: Sequence[Step], pid: int) -> str | None:
        each = self.limits.check
        together = sum(one.limit or each for one in questions)
        limits = StepLimits(whole=together, call=each, run=each)
        return await self._steps(pid).take(questions, limits)

    async def weigh(self, pid: int) -> Held | None:
        """Measure the memory that the model holds; None if that takes too long."""
        with trio.move_on_after(self.limits.check):
            host = needs_host(self.model.verify, self.model.recipe)
            return await self.contact.weigh(pid, host)
        return None

    async def one_token(self, route: str = "") -> Token:
        """Ask for one token, at a route if it is given."""
        with trio.move_on_after(self.limits.canary):
            return await self.contact.one_token(self.model, route)
        return Token(failure=f"no token within {seconds(self.limits.canary)}")

    async def ask_to_stop(self, pid: int) -> str | None:
        """Run cmdStop; its limit is the grace it runs in."""
        argv = self.model.cmd_stop.for_process(pid)
        failure = await run_command(argv, env=self.environment(), on_output=self.output.write)
        return f"cmdStop {failure}" if failure else None

    async def become_ready(self) -> str | None:
        """Wait until the model answers its check."""
        check = ReadyCheck(self.contact.probe, self.model)
        with trio.move_on_after(self.limits.ready) as scope:
            await check.passed()
        if scope.cancelled_caught:
            return f"not ready within {seconds(self.limits.ready)}: {check.last_answer}"
        return None

    def environment(self) -> dict[str, str]:
        """Return the daemon's environment with the model's additions."""
        return environment_of(self.model)

    def _steps(self, pid: int) -> Steps:
        return Steps(self.model.id, pid, self.contact.call, self.environment(), self.output.write)


def environment_of(model: Model) -> dict[str, str]:
    """Return the environment of a model's process and its commands."""
    pairs = (entry.partition("=") for entry in model.env)
    return os.environ | {name: value for name, equals, value in pairs if name and equals}


def summary(steps: Sequence[Step], what: str) -> str:
    """Name some steps in a few words: ``cmdSleep``, ``2 sleep requests``, ``3 sleep steps``."""
    if len(steps) == 1 and not isinstance(steps[0], Call):
        return steps[0].name
    kind = "request" if all(isinstance(step, Call) for step in steps) else "step"
    return f"{len(steps)} {what} {kind}{'' if len(steps) == 1 else 's'}"
