"""A model's sleep and wake with their proof: taken, verified, and trusted no further than that.

Owns what is known of it: how far sleep is trusted, what memory it left, what the model said before.
Nothing here stops the model; what a failure leads to is the model server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
import trio

from configschema import Model
from supervisor.actions import Actions
from supervisor.contact import Token
from supervisor.memory import Held
from supervisor.proof import MIB, Amount, History, amounts, shortfall, size
from supervisor.readiness import pause_after
from supervisor.trust import FULL_TRUST, Trust

UNMEASURED = "the memory that the model holds cannot be measured any more"


class Tell(Protocol):
    """Write an operator's line."""

    def __call__(self, level: str, message: str, **facts: object) -> None:
        """Write it."""


@attrs.frozen
class Slept:
    """What came of a sleep: why it failed, if it did; why the process should be replaced."""

    failure: str | None = None
    worn: str | None = None


@attrs.define(eq=False)
class Sleeping:
    """The sleep of one model, from process to process.

    Attributes:
        tell: writes an operator's line.
        trust: whether it may sleep.
        amounts: the memory that the last sleep has freed and left, by kind.
        histories: what the sleeps of the present process have left, by kind of memory.
    """

    tell: Tell
    trust: Trust = FULL_TRUST
    amounts: Mapping[str, Amount] = attrs.field(factory=dict, init=False)
    histories: Mapping[str, History] = attrs.field(factory=dict, init=False)
    _said_before: Token | None = attrs.field(default=None, init=False)

    def begin_life(self) -> None:
        """Forget what was known of the last process."""
        self.amounts, self.histories, self._said_before = {}, {}, None

    async def fall_asleep(self, actions: Actions, pid: int) -> Slept:
        """Put the model to sleep and prove it."""
        await self._ask_before(actions)
        awake = await actions.weigh(pid)
        failure = (
            await actions.sleep(pid)
            or await actions.prove_asleep(pid)
            or await self._prove_freed(actions, pid, awake)
        )
        return Slept(failure, None if failure else self._worn(actions.model))

    async def wake(self, actions: Actions, pid: int) -> str | None:
        """Wake the model and prove it; return how that failed, or None."""
        failure = (
            await actions.wake(pid)
            or await actions.prove_awake(pid)
            or await self._ask_after(actions)
        )
        if failure is None:
            self.trust = self.trust.proved()
        return failure

    def failed(self, actions: Actions) -> None:
        """Count a failure; enough of them end the trust."""
        held, self.trust = self.trust.holds, self.trust.failed(actions.limits.sleep_failures)
        if held and not self.trust.holds:
            count, name = self.trust.failures, actions.model.id
            self.tell(
                "error",
                f"Sleep is switched off after {count} failures in a row (maxSleepFailures): the "
                "model is stopped to make room. A reload, or POST /api/models/sleep/"
                f"{name}, lets it sleep again",
                failures=count,
            )

    # Memory.

    async def _prove_freed(self, actions: Actions, pid: int, awake: Held | None) -> str | None:
        """Measure until enough is freed; return why it is not, or None."""
        if awake is None:
            self.tell("warning", "The memory could not be measured in time; it is not verified")
            return None
        found, failure = await self._until_freed(actions, pid, awake)
        self.amounts = {one.kind: one for one in found}
        if failure:
            return failure
        for one in found:
            self._note(one)
        return None

    async def _until_freed(
        self, actions: Actions, pid: int, awake: Held
    ) -> tuple[list[Amount], str | None]:
        verify, recipe = actions.model.verify, actions.model.recipe
        found = amounts(verify, recipe, awake, awake)
        failure = UNMEASURED if found else None
        began = trio.current_time()
        with trio.move_on_after(actions.limits.check):
            while failure:
                asleep = await actions.contact.weigh(pid)
                if awake.gpu and asleep.gpu is None and verify.gpu_memory:
                    return [], UNMEASURED
                found = amounts(verify, recipe, awake, asleep)
                failure = next(filter(None, (shortfall(verify, one) for one in found)), None)
                if failure:
                    await trio.sleep(pause_after(trio.current_time() - began))
        return found, failure

    def _note(self, amount: Amount) -> None:
        history = self.histories.get(amount.kind, History()).then(amount.asleep)
        self.histories = {**self.histories, amount.kind: history}
        more = f"; {size(history.trend)} more with each sleep" if history.trend >= MIB else ""
        self.tell(
            "info",
            f"Sleep {amount}{more}",
            memory=amount.kind,
            freed_bytes=amount.freed,
            left_bytes=amount.asleep,
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
                    f"what sleep leaves of {kind} memory has grown by {grown}, more than {limit} "
                    "(verify.maxGrowth)"
                )
        return None

    # The canary.

    async def _ask_before(self, actions: Actions) -> None:
        """Hear what the model says while it is well, once for each process."""
        if self._said_before is None and _has_canary(actions.model):
            self._said_before = await actions.one_token()
            if reason := self._said_before.failure:
                self.tell("warning", f"No token is asked for after a wake: {reason}", reason=reason)

    async def _ask_after(self, actions: Actions) -> str | None:
        """Return what is wrong with what the model says after a wake, or None."""
        before = self._said_before or Token()
        if not _has_canary(actions.model) or before.failure:
            return None
        now = await actions.one_token()
        if now.failure:
            return f"after the wake no token came: {now.failure}"
        if self._said_before and now.text != before.text:
            return f"after the wake the model said {now.text!r}, and {before.text!r} before"
        return None


def _has_canary(model: Model) -> bool:
    own = model.verify.canary
    return model.recipe.canary if own is None else own
