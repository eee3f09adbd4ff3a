"""What is done to a model server from outside: its commands, its HTTP steps and its checks.

Owns how the configured steps are taken for one model, each within its limit. Each action returns
how it failed, in an operator's words, or None. What follows is decided elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from math import inf

import attrs
import trio

from configschema import Call, Limits, Model, Step
from configschema.keys.presets import PRESETS
from supervisor.places.containers import StopCommand
from supervisor.places.running import RunningServer
from supervisor.processes.commands import run_told
from supervisor.processes.memory import Held
from supervisor.processes.output import LogRing
from supervisor.sleep.contact import Contact, Token
from supervisor.sleep.proof import needs_host
from supervisor.sleep.readiness import SLOWEST_ANSWER, ReadyCheck
from supervisor.sleep.slots import Slots
from supervisor.sleep.steps import StepLimits, Steps
from supervisor.states.durations import seconds

LONGEST_LOOK = 1.0  # seconds that a look may take that finds nothing to do
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN)
SETTLES_IN = 0.5  # seconds for a server that cannot be asked to drop requests that were cut off


@attrs.frozen
class Actions:
    """The actions of one model.

    Attributes:
        model: the model.
        limits: how long each action may take.
        contact: the ways to reach the server.
        output: takes what the commands write.
        server: the server that they act on.
        done: called after each step with its name and its seconds.
    """

    model: Model
    limits: Limits
    contact: Contact
    output: LogRing
    server: RunningServer
    done: Callable[[str, float], None] = lambda _, __: None

    async def fall_idle(self, until: float, cut_at: float) -> str | None:
        """Wait until a server with requests that were cut off is idle; return why it is not.

        Args:
            until: when it must be idle, on Trio's clock.
            cut_at: when the last request was cut off.
        """
        if self.model.recipe.idle:
            return await self._prove(
                self.model.recipe.idle, until, max(until - trio.current_time(), 0.001)
            )
        await trio.sleep_until(min(until, cut_at + SETTLES_IN))
        return None

    async def sleep(self, until: float) -> str | None:
        """Take the steps into sleep, up to the first that fails."""
        limit, of_a_call = self.limits.sleep, self.limits.sleep_call
        limits = StepLimits(whole=limit, call=of_a_call, run=limit, until=until)
        return await self._steps().take(self.model.recipe.sleep, limits)

    async def prove_asleep(self, until: float) -> str | None:
        """Ask the questions whose answers prove a sleep."""
        return await self._prove(self.model.recipe.asleep, until)

    async def sleeps_already(self, limit: float = LONGEST_LOOK) -> bool:
        """Ask once, before any sleep, what proves a sleep; no answer in time means awake."""
        once = [attrs.evolve(one, repeat=False) for one in self.model.recipe.asleep]
        with trio.move_on_after(limit):
            return bool(once) and await self._prove(once, inf) is None
        return False

    @property
    def naps(self) -> bool:
        """Whether the server also falls asleep by itself, and wakes by itself for a request."""
        return self.model.sleep is not None and PRESETS[self.model.sleep].naps

    async def wake(self, until: float) -> str | None:
        """Take the steps out of sleep and wait until the model is ready."""
        steps = self.model.recipe.wake
        limit, of_a_call = self.limits.wake, self.limits.wake_call
        limits = StepLimits(whole=limit, call=of_a_call, run=limit, until=until)
        if failure := await self._steps().take(steps, limits):
            return failure
        if failure := await self._pass_check(until):
            within = seconds(limit)
            return (
                f"after {summary(steps, 'wake')} the model was not ready within {within}: {failure}"
            )
        return None

    async def prove_awake(self, until: float) -> str | None:
        """Ask the questions whose answers prove a wake."""
        return await self._prove(self.model.recipe.awake, until)

    async def _prove(self, questions: Sequence[Step], until: float, each: float = 0) -> str | None:
        each = each or self.limits.check
        together = sum(one.limit or each for one in questions)
        limits = StepLimits(whole=together, call=each, run=each, until=until)
        return await self._steps().take(questions, limits)

    async def weigh(self, until: float = inf) -> Held | None:
        """Measure the memory that the model holds; None if that takes too long."""
        with trio.CancelScope(deadline=min(until, trio.current_time() + self.limits.check)):
            return await self.weigh_now()
        return None

    async def weigh_now(self) -> Held:
        """Measure the memory that the model holds; None in place of what cannot be seen."""
        return await self.server.weigh(host=needs_host(self.model.verify, self.model.recipe))

    async def one_token(self, route: str = "", most: float = inf) -> Token:
        """Ask for one token within a limit, at this route if it is given."""
        limit = min(self.limits.canary, most)
        with trio.move_on_after(limit):
            return await self.contact.one_token(self.model, route)
        return Token(failure=f"no token within {seconds(limit)}")

    async def save_slots(self, stem: str) -> None:
        """Save llama.cpp's slots to files with this prefix; a failure is only logged."""
        await self._slots(stem).save()

    async def restore_slots(self, stem: str) -> None:
        """Restore llama.cpp's slots from such files; a failure is only logged."""
        await self._slots(stem).restore()

    def _slots(self, stem: str) -> Slots:
        return Slots(self.model, self.contact.ask, stem, self.limits.sleep / 2)

    async def run_stop_command(self, command: StopCommand) -> str | None:
        """Run the command that asks the model to stop, within its own limit."""
        argv = self.server.command(command.argv)
        with trio.move_on_after(command.limit):
            failure = await run_told(argv, env=self.environment(), on_output=self.output.write)
            return f"{command.name} {failure}" if failure else None
        return f"{command.name} timed out after {seconds(command.limit)}"

    async def become_ready(self) -> str | None:
        """Wait until the model answers its check, and the answer is its own."""
        limit = self.limits.ready
        failure = await self._pass_check(trio.current_time() + limit)
        if failure is not None:
            key = "readyTimeout" if self.model.ready_timeout else "readyTimeout, healthCheckTimeout"
            return f"not ready within {seconds(limit)}: {failure}; if it needs longer, raise {key}"
        return await self.server.landed()

    async def _pass_check(self, until: float) -> str | None:
        """Wait until the check is passed; if that is not in time, return the last answer."""
        check = ReadyCheck(self.contact.probe, self.model)
        with trio.CancelScope(deadline=until):
            await check.passed()
            return None
        return check.last_answer

    async def is_well(self) -> str | None:
        """Ask once whether the model answers its check; return what it did instead, or None."""
        if self.model.check_endpoint == "none":
            return None
        with trio.move_on_after(SLOWEST_ANSWER):
            failure = await self.contact.probe(self.model)
            return None if failure and _is_ours(failure) else failure
        return f"no answer within {seconds(SLOWEST_ANSWER)}"

    def environment(self) -> dict[str, str]:
        """Return the daemon's environment with the model's additions."""
        return {**environment_of(self.model), **self.server.env}

    def _steps(self) -> Steps:
        return Steps(
            *(self.model.id, self.server, self.contact.call, self.environment()),
            *(self.output.write, self.done),
        )


def _is_ours(failure: str) -> bool:
    """Whether a check failed for the daemon's lack of resources, not the server's fault."""
    return any(os.strerror(number).lower() in failure.lower() for number in OURS)


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
