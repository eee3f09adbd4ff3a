"""How far the sleep of one model is trusted. Pure.

Owns the count of failures. The model server decides what a failure is, and what follows.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Trust:
    """Whether a model may sleep.

    Attributes:
        failures: sleeps and wakes that have failed in a row.
        holds: whether the model may sleep; once lost, only the operator gives this back.
    """

    failures: int = 0
    holds: bool = True

    def failed(self, most: int) -> Trust:
        """Return the trust after a failure; `most` in a row end it, 0 is no limit."""
        failures = self.failures + 1
        return Trust(failures, self.holds and not 0 < most <= failures)

    def proved(self) -> Trust:
        """Return the trust after a sleep and the wake from it that were both good."""
        return Trust(0, self.holds)


FULL_TRUST = Trust()
