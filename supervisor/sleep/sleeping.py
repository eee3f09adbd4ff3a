"""A model's sleep and wake with their proof: taken, verified, and trusted no further than that.

Owns what is known of it: how far sleep is trusted, what memory it left, what the model said before.
Nothing here stops the model. The model server decides what follows from a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Protocol

import attrs
import trio

from configschema import Model
from supervisor.processes.memory import Held
from supervisor.sleep.actions import Actions
from supervisor.sleep.contact import Token
from supervisor.sleep.proof import GIB, MIB, Amount, History, amounts, needs_host, shortfall, size
from supervisor.sleep.readiness import pause_after
from supervisor.sleep.trust import FULL_TRUST, Trust

OF_THE_SLEEP = 60.0  # seconds in which a death while asleep counts as the sleep's fault


class Tell(Protocol):
    """Writes an operator's line."""

    def __call__(self, level: str, message: str, **facts: object) -> None:
        """Write it."""


@attrs.frozen
class Slept:
    """The result of a sleep: why it failed, if it did; why the process should be replaced."""

    failure: str | None = None
    worn: str | None = None


@attrs.define(eq=False)
class Sleeping:
    """The sleep of one model, from process to process.

    Attributes:
        tell: writes an operator's line.
        trust: whether it may sleep.
        last_failure: why a sleep or a wake last failed.
        amounts: the memory that the last sleep has freed and left, by kind.
        histories: what the sleeps of the present process have left, by kind of memory.
        slept_at: when it last fell asleep, on Trio's clock.
    """

    tell: Tell
    trust: Trust = FULL_TRUST
    last_failure: str | None = attrs.field(default=None, init=False)
    amounts: Mapping[str, Amount] = attrs.field(factory=dict, init=False)
    histories: Mapping[str, History] = attrs.field(factory=dict, init=False)
    slept_at: float = attrs.field(default=-inf, init=False)
    _said_unproved: bool = attrs.field(default=False, init=False)
    _said_before: Token | None = attrs.field(default=None, init=False)

    def begin_life(self) -> None:
        """Forget what was known of the last process."""
        self.amounts, self.histories = {}, {}
        self._said_before, self._said_unproved = None, False

    async def fall_asleep(self, actions: Actions, cut_at: float | None) -> Slept:
        """Put the model to sleep and prove it, all within the limit of a sleep.

        Args:
            actions: what can be done to the model.
            cut_at: when a request was cut off that the server may still work on; None without one.
        """
        until = trio.current_time() + actions.limits.sleep
        await self._ask_before(actions)
        awake = await self._held_before(actions, until)
        failure = (
            (cut_at is not None and await actions.fall_idle(until, cut_at))
            or await actions.sleep(until)
            or await actions.prove_asleep(until)
            or await self._prove_freed(actions, awake, until)
        )
        if failure:
            return Slept(failure)
        self.slept_at = trio.current_time()
        return Slept(None, self._worn(actions.model))

    async def wake(self, actions: Actions) -> str | None:
        """Wake the model and prove it within the limit of a wake; return how that failed, or None.

        The canary's token has a limit of its own.
        """
        until = trio.current_time() + actions.limits.wake
        failure = (
            await actions.wake(until)
            or await actions.prove_awake(until)
            or await self._ask_after(actions)
        )
        if failure is None:
            self.trust = self.trust.proved()
        return failure

    def died(self, actions: Actions, reason: str) -> None:
        """Count a death while asleep as a failed sleep, if it came soon after the sleep."""
        if trio.current_time() - self.slept_at <= OF_THE_SLEEP:
            self.failed(actions, reason)

    def failed(self, actions: Actions, reason: str) -> None:
        """Count a failure; too many in a row end the trust."""
        held, self.trust = self.trust.holds, self.trust.failed(actions.limits.sleep_failures)
        self.last_failure = reason
        if held and not self.trust.holds:
            count, name = self.trust.failures, actions.model.id
            times = "a failure" if count == 1 else f"{count} failures in a row"
            self.tell(
                "error",
                f"Sleep is switched off after {times} (maxSleepFailures): llamadoze stops the "
                "model to make room. To let it sleep again, reload, or POST "
                f"/api/models/sleep/{name} while it is loaded",
                reason=reason,
                failures=count,
            )

    # Memory.

    async def _held_before(self, actions: Actions, until: float) -> Held | None:
        """Measure what a sleep can free: nothing, if the model has nothing loaded yet."""
        held, verify = await actions.weigh(until), actions.model.verify
        if held is None:
            return None
        of_preset = verify.host_memory is None and not verify.asleep
        needed = needs_host(verify, actions.model.recipe)
        is_little = held.gpu is not None and held.gpu < GIB
        if of_preset and (needed or is_little) and await actions.sleeps_already():
            return Held()
        if not needed:
            return held
        if held.host is None and (verify.host_memory or not actions.model.recipe.asleep):
            self.tell("warning", "Host memory cannot be measured, so it does not prove this sleep")
        return held

    async def _prove_freed(self, actions: Actions, awake: Held | None, until: float) -> str | None:
        """Measure until enough is freed; return why it is not, or None."""
        if awake is None:
            self.tell("warning", "The memory could not be measured in time and is not verified")
            return None
        found, failure = await self._until_freed(actions, awake, until)
        if not found and not actions.model.recipe.asleep and not self._said_unproved:
            self._said_unproved = True
            text = "Nothing proves this sleep: no question (verify.asleep), no memory to measure"
            self.tell("info", text)
        self.amounts = {one.kind: one for one in found if one.asleep is not None}
        if failure:
            return failure
        for one in found:
            self._note(one)
        return None

    async def _until_freed(
        self, actions: Actions, awake: Held, until: float
    ) -> tuple[list[Amount], str | None]:
        verify, recipe = actions.model.verify, actions.model.recipe
        told = bool(recipe.asleep)
        found = amounts(verify, recipe, awake, Held())
        failure = _first(shortfall(verify, one, told=told) for one in found)
        began = trio.current_time()
        with trio.CancelScope(deadline=min(until, began + actions.limits.check)):
            while failure:
                found = amounts(verify, recipe, awake, await actions.weigh_now())
                failure = _first(shortfall(verify, one, told=told) for one in found)
                if failure:
                    await trio.sleep(pause_after(trio.current_time() - began))
        return found, failure

    def _note(self, amount: Amount) -> None:
        history = self.histories.get(amount.kind, History()).then(amount.left)
        self.histories = {**self.histories, amount.kind: history}
        more = f"; {size(history.trend)} more with each sleep" if history.trend >= MIB else ""
        self.tell(
            "info",
            f"Sleep {amount}{more}",
            memory=amount.kind,
            freed_bytes=amount.freed,
            left_bytes=amount.left,
            cycles=history.cycles,
            trend_bytes=round(history.trend),
        )

    def _worn(self, model: Model) -> str | None:
        """Return why the process should be replaced, or None."""
        most = model.verify.max_growth * MIB
        for kind, history in self.histories.items():
            if 0 < most < history.growth:
                grown, limit = size(history.growth), size(most)
                return (
                    f"the {kind} memory that sleep leaves has grown by {grown}, more than {limit} "
                    "(verify.maxGrowth)"
                )
        return None

    # The canary.

    async def _ask_before(self, actions: Actions) -> None:
        """Ask the model for a token while it is well, once for each process."""
        if self._said_before is not None or not _has_canary(actions.model):
            return
        most = actions.limits.sleep / 2  # the rest is for the sleep itself
        if failure := self._hear_first(await actions.one_token(most=most)):
            self.tell("warning", f"No token came before the sleep: {failure}", reason=failure)

    def _hear_first(self, token: Token) -> str | None:
        """Take note of the model's first token; return why none came, if the model could."""
        if token.failure is None or token.is_unsuited:
            self._said_before = token
        if token.is_unsuited:
            text = f"The wakes of this process are not checked by a token: {token.failure}"
            self.tell("warning", text, reason=token.failure)
            return None
        return token.failure

    async def _ask_after(self, actions: Actions) -> str | None:
        """Return what is wrong with the model's token after a wake, or None."""
        before = self._said_before
        if not _has_canary(actions.model) or (before and before.failure):
            return None
        now = await actions.one_token(before.route if before else "")
        # There is no token before if another daemon put it to sleep, or the canary was off then.
        failure = self._hear_first(now) if before is None else now.failure
        if failure:
            return f"after the wake no token came: {failure}"
        if before and now.text != before.text:
            return f"after the wake the model said {now.text!r}, before the sleep {before.text!r}"
        return None


def _first(failures: Iterable[str | None]) -> str | None:
    return next(filter(None, failures), None)


def _has_canary(model: Model) -> bool:
    own = model.verify.canary
    return model.recipe.canary if own is None else own
