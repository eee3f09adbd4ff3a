"""When a model is wanted again: how long it was idle between its uses, the last few times. Pure.

Owns what these gaps say of the next one. Counting them is `usage`'s.
"""

from __future__ import annotations

import attrs

REMEMBERED = 16
SOON = 60.0  # seconds


@attrs.frozen
class Habits:
    """The habits of those who use one model.

    Attributes:
        gaps: seconds from the end of its last request to the next one, the newest last.
    """

    gaps: tuple[float, ...] = ()

    def then(self, gap: float) -> Habits:
        """Return them after one more gap."""
        return Habits((*self.gaps, gap)[-REMEMBERED:])

    def mostly_within(self, seconds: float) -> bool:
        """Whether at least half of the gaps were shorter than this; not if there were none."""
        return 0 < len(self.gaps) <= 2 * sum(gap < seconds for gap in self.gaps)

    def likely_soon(self, idle: float) -> float:
        """Return how likely the model is wanted soon, more than 0 and at most 1.

        Of gaps that were longer than the present one the rest is what is left to wait; without
        any, what has been idle for long stays so for as long again.

        Args:
            idle: seconds for which it is idle already.
        """
        longer = [gap - idle for gap in self.gaps if gap > idle]
        left = sum(longer) / len(longer) if longer else SOON + idle
        return SOON / (SOON + left)


NO_HABITS = Habits()
