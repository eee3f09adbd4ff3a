"""When a model is likely wanted again: how long it was idle between its last uses. Pure.

Owns what these gaps say of the next one. `usage` measures them.
"""

from __future__ import annotations

import attrs

REMEMBERED = 16
SOON = 60.0  # seconds


@attrs.frozen
class Habits:
    """How one model's users come back to it.

    Attributes:
        gaps: seconds from the end of its last request to the next one, the newest last.
    """

    gaps: tuple[float, ...] = ()

    def then(self, gap: float) -> Habits:
        """Return the habits after one more gap."""
        return Habits((*self.gaps, gap)[-REMEMBERED:])

    def mostly_within(self, seconds: float) -> bool:
        """Whether at least half of the gaps were shorter than this; False if there are no gaps."""
        return 0 < len(self.gaps) <= 2 * sum(gap < seconds for gap in self.gaps)

    def likely_soon(self, idle: float) -> float:
        """Return how likely the model is wanted soon, more than 0 and at most 1.

        The wait still to come is the average rest of the gaps that were longer than the present
        one. If no gap was longer, the model is expected to stay idle for as long again.

        Args:
            idle: seconds for which the model is idle already.
        """
        longer = [gap - idle for gap in self.gaps if gap > idle]
        left = sum(longer) / len(longer) if longer else SOON + idle
        return SOON / (SOON + left)


NO_HABITS = Habits()
