"""What a model server has to do with the other models: what it tells of, and what it asks for.

Owns the form. Who answers is the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from configschema import Model
from supervisor.states.learned import NOTHING_LEARNED, Learned


class Surroundings:
    """The others; of what is not overridden, nothing is known and nothing done."""

    def changed(self) -> None:
        """Take note that the model's state has changed."""

    def failed(self, reason: str) -> None:
        """Take note that it has failed while it was wanted."""

    def crashed(self) -> None:
        """Take note that it has died while it served."""

    def watched(self) -> bool:
        """Return whether it is looked after while nobody asks for it."""
        return False

    def ignores_leftovers(self) -> bool:
        """Return whether models start although something could not be ended."""
        return False

    def taken_ports(self) -> set[int]:
        """Return the ports that others have."""
        return set()

    def sleepers(self) -> Sequence[str]:
        """Return those that sleep where it runs, the least valuable first."""
        return ()

    def are_placed_by_memory(self) -> bool:
        """Return whether who runs beside whom follows from what each holds."""
        return False

    def learned_of(self, model: Model) -> Learned:
        """Return what was learned of a model before, in this daemon or an earlier one."""
        return NOTHING_LEARNED

    def environment(self) -> Mapping[str, str]:
        """Return what its process is told of the GPUs that it may use."""
        return {}

    async def clear(self) -> str | None:
        """Stop those, and wait for their end; return why that did not come, or None."""
        await trio.lowlevel.checkpoint()
        return None


NOWHERE = Surroundings()
