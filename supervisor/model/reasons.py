"""Why a process's life is over, and what the log says of a model that failed. Pure.

Owns the words. The model server decides what follows for the model.
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
        reason: the reason in an operator's words, if there is one.
        failed: whether the model has failed.
        crashed: whether its next start must wait for the backoff; a death while asleep does not
        count.
        retried: whether those that wait for it go on to wait for the next start, without an error.
    """

    reason: str | None = None
    failed: bool = False
    retried: bool = False
    crashed: bool = True

    def seen_in(self, server: RunningServer) -> Ending:
        """Return this, or a failure if something has outlived the server's end."""
        if server.left is None:
            return self
        return Ending(f"{server.left} could not be ended: {server.left.remedy}", failed=True)

    def with_output(self, lines: Sequence[str]) -> str:
        """Return the reason with the last output of the process."""
        last = " | ".join(lines)
        return f"{self.reason}; last output: {last}" if last else f"{self.reason}"


def failure_told(reason: str, backoff: Backoff, now: float) -> str:
    """Return the log's text for a model that failed: why, and when it starts again."""
    return f"Model failed: {reason}. {backoff.next_start(now)}"
