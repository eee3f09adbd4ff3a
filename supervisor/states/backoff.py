"""How soon a model that has failed may start again. Pure.

Owns the count of failures and the pause after each failure. The model server decides what a failure
is. The scheduler makes requests wait for the end of a pause.
"""

from __future__ import annotations

from math import inf

import attrs

from supervisor.states.durations import seconds

FIRST_BACKOFF = 1.0  # seconds; each further failure doubles it
GOOD_RUN = 60.0  # seconds of serving after which earlier failures no longer count
MOST_DOUBLINGS = 30
LONGEST_HELD = 5.0  # seconds that a request waits for the next start of a model that failed


@attrs.frozen
class Backoff:
    """When a model that failed may start again.

    Attributes:
        failures: failures in a row.
        until: when the model may start again, on Trio's clock.
    """

    failures: int = 0
    until: float = -inf

    def is_short(self, now: float) -> bool:
        """Whether requests wait for the end of the pause."""
        return self.until - now <= LONGEST_HELD

    def failed(self, now: float, served: float, most: float) -> Backoff:
        """Return the backoff after one more failure.

        Args:
            now: on Trio's clock.
            served: seconds that the process served before it failed.
            most: seconds to wait at most; 0 means no wait.
        """
        failures = 1 if served >= GOOD_RUN else self.failures + 1
        pause = FIRST_BACKOFF * 2.0 ** min(failures - 1, MOST_DOUBLINGS)
        return Backoff(failures, now + min(pause, most))

    def next_start(self, now: float) -> str:
        """Say when the model starts again, in an operator's words."""
        wait = self.until - now
        if wait <= 0:
            return "The next request starts it again"
        count = f" after {self.failures} failures in a row" if self.failures > 1 else ""
        return f"A request in {seconds(wait)} or later starts it again{count}"


NO_BACKOFF = Backoff()
