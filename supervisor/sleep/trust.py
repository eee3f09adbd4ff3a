"""How far the sleep of one model is trusted, and how soon one that fails is started again. Pure.

Owns the counting of failures. What a failure is, and what is done about it, is the model server's.
"""

from __future__ import annotations

from math import inf

import attrs

from supervisor.states.durations import seconds

FIRST_BACKOFF = 1.0  # seconds; each further failure doubles it
GOOD_RUN = 60.0  # seconds of serving after which earlier failures do not count any more
MOST_DOUBLINGS = 30
LONGEST_HELD = 5.0  # seconds that a request waits for the next start of a model that failed


@attrs.frozen
class Trust:
    """Whether a model may sleep.

    Attributes:
        failures: sleeps and wakes that have failed in a row.
        holds: whether it may; once lost, only the operator gives it back.
    """

    failures: int = 0
    holds: bool = True

    def failed(self, most: int) -> Trust:
        """Return what is left of it after a failure; `most` in a row end it, 0 is no limit."""
        failures = self.failures + 1
        return Trust(failures, self.holds and not 0 < most <= failures)

    def proved(self) -> Trust:
        """Return it after a sleep and the wake from it, both of them good."""
        return Trust(0, self.holds)


@attrs.frozen
class Backoff:
    """When a model that failed may start again.

    Attributes:
        failures: in a row.
        until: when, on Trio's clock.
    """

    failures: int = 0
    until: float = -inf

    def is_short(self, now: float) -> bool:
        """Whether requests wait for it."""
        return self.until - now <= LONGEST_HELD

    def failed(self, now: float, served: float, most: float) -> Backoff:
        """Return it after a failure.

        Args:
            now: on Trio's clock.
            served: seconds that the process served before.
            most: seconds to wait at most; 0 is not at all.
        """
        failures = 1 if served >= GOOD_RUN else self.failures + 1
        pause = FIRST_BACKOFF * 2.0 ** min(failures - 1, MOST_DOUBLINGS)
        return Backoff(failures, now + min(pause, most))

    def next_start(self, now: float) -> str:
        """Say when it starts again, in an operator's words."""
        wait = self.until - now
        if wait <= 0:
            return "The next request starts it again"
        count = f" after {self.failures} failures in a row" if self.failures > 1 else ""
        return f"A request in {seconds(wait)} or later starts it again{count}"


FULL_TRUST = Trust()
NO_BACKOFF = Backoff()
