"""A model server's view of the other models: what it tells them, and what it asks of them.

Owns the form. The fleet answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from configschema import Model
from supervisor.states.learned import NOTHING_LEARNED, Learned


class Surroundings:
    """The other models; a method that is not overridden knows nothing and does nothing."""

    def changed(self) -> None:
        """Take note that the model's state has changed."""

    def failed(self, reason: str) -> None:
        """Take note that the model has failed while it was wanted."""

    def crashed(self) -> None:
        """Take note that the model has died while it served."""

    def watched(self) -> bool:
        """Return whether the model is checked even without requests."""
        return False

    def ignores_leftovers(self) -> bool:
        """Return whether models start although something could not be ended."""
        return False

    def taken_ports(self) -> set[int]:
        """Return the ports of other models."""
        return set()

    def sleepers(self) -> Sequence[str]:
        """Return the models that sleep where this one runs, the least valuable first."""
        return ()

    def are_placed_by_memory(self) -> bool:
        """Return whether memory decides which models run together."""
        return False

    def learned_of(self, model: Model) -> Learned:
        """Return what was learned of a model before, in this daemon or an earlier one."""
        return NOTHING_LEARNED

    def environment(self) -> Mapping[str, str]:
        """Return the variables that tell its process which GPUs it may use."""
        return {}

    async def clear(self) -> str | None:
        """Stop these sleepers, and wait for their end; return why that failed, or None."""
        await trio.lowlevel.checkpoint()
        return None


NOWHERE = Surroundings()
