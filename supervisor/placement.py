"""Who may run beside whom, as pure functions of the configuration.

One model at a time is the rule here. Richer rules take this place behind the same signature.
"""

from __future__ import annotations

from collections.abc import Callable

Conflicts = Callable[[str, str], bool]
"""Whether two different models must not hold memory at once."""


def one_at_a_time(_wanted: str, _other: str) -> bool:
    """Let no model run beside another."""
    return True
