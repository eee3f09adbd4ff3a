"""Why a process's life is over, and what the log says of a model that failed. Pure.

Owns the words. What follows for the model is the model server's.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from supervisor.places.running import RunningServer
from supervisor.states.backoff import Backoff

LINES_IN_A_REASON = 3
OOM = "; llamadoze has not ended it: look for the OOM killer (dmesg), as sleepers hold host memory"


@attrs.frozen
class Ending:
    """Why a process's life is over.

    Attributes:
        reason: in an operator's words, if there is one.
        failed: whether the model has failed.
        crashed: whether its next start has to wait for that: a death asleep is no crash of a start.
        retried: whether who waits for it goes on to wait for that start, instead of being told.
    """

    reason: str | None = None
    failed: bool = False
    retried: bool = False
    crashed: bool = True

    def seen_in(self, server: RunningServer) -> Ending:
        """Return it, or that something has outlived its end."""
        if server.left is None:
            return self
        return Ending(f"{server.left} could not be ended: {server.left.remedy}", failed=True)

    def with_output(self, lines: Sequence[str]) -> str:
        """Return the reason, with what the process has said last."""
        last = " | ".join(lines)
        return f"{self.reason}; last output: {last}" if last else f"{self.reason}"


def failure_told(reason: str, backoff: Backoff, now: float) -> str:
    """Return what the log says of a model that failed: why, and when it starts again."""
    return f"Model failed: {reason}. {backoff.next_start(now)}"
