"""Why a process's life is over, and what the log says of a model that failed. Pure.

Owns the words. What follows for the model is the model server's.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from supervisor.processes.child import LONGEST_DEATH, Child
from supervisor.states.backoff import Backoff
from supervisor.states.durations import seconds

LINES_IN_A_REASON = 3
STUCK = (
    f"did not end within {seconds(LONGEST_DEATH)} of SIGKILL, so it hangs in the kernel and may "
    "hold its memory; look at its driver (dmesg)"
)


@attrs.frozen
class Ending:
    """Why a process's life is over.

    Attributes:
        reason: in an operator's words, if there is one.
        failed: whether the model has failed, and its next start has to wait.
        retried: whether who waits for it goes on to wait for that start, instead of being told.
    """

    reason: str | None = None
    failed: bool = False
    retried: bool = False

    def seen_in(self, child: Child) -> Ending:
        """Return it, or that the process has outlived its end."""
        return Ending(f"process {child.pid} {STUCK}", failed=True) if child.is_stuck else self

    def with_output(self, lines: Sequence[str]) -> str:
        """Return the reason, with what the process has said last."""
        last = " | ".join(lines)
        return f"{self.reason}; last output: {last}" if last else f"{self.reason}"


def failure_told(reason: str, backoff: Backoff, now: float) -> str:
    """Return what the log says of a model that failed: why, and when it starts again."""
    return f"Model failed: {reason}. {backoff.next_start(now)}"
