"""How far the sleep of one model is trusted. Pure.

Owns the counting of failures. What a failure is, and what is done about it, is the model server's.
"""

from __future__ import annotations

import attrs


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


FULL_TRUST = Trust()
