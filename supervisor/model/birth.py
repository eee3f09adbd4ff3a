"""How a model server comes by its process: it is started, or taken over from an earlier daemon.

Owns where the output goes, and what is done with a process that cannot be taken over. What the
process is for is the model server's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from configschema import Limits, Model
from supervisor.processes.child import CannotStart, Child, open_child, own
from supervisor.processes.groups import end_group
from supervisor.processes.output import LogFile
from supervisor.sleep.actions import environment_of
from supervisor.succession.adopted import is_left_over, recognised
from supervisor.succession.records import Record

Hear = Callable[[bytes], None]


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


@asynccontextmanager
async def started(
    model: Model, limits: Limits, log_file: Path | None, hear: Hear
) -> AsyncIterator[Child]:
    """Start a model's process; leaving the block ends it, or lets it go.

    Args:
        model: what to run.
        limits: its grace at the end.
        log_file: where its output goes, so that it can outlive the daemon; None is a pipe.
        hear: called with its output.

    Raises:
        CannotStart: and why.
    """
    async with open_child(
        model.cmd.argv,
        env=environment_of(model),
        on_output=hear,
        grace=limits.unload,
        log_file=log_file,
    ) as child:
        yield child


@asynccontextmanager
async def taken_over(
    record: Record, limits: Limits, log_file: Path | None, hear: Hear
) -> AsyncIterator[Child]:
    """Own a process of an earlier daemon; leaving the block ends it, or lets it go.

    Args:
        record: what is known of it.
        limits: its grace at the end.
        log_file: where its output goes.
        hear: called with its output.

    Raises:
        CannotStart: it has ended meanwhile, and with it all that it had started.
    """
    with recognised(record.pid, record.started) as leader:
        if leader is None or log_file is None:
            if is_left_over(record.pid, record.started):
                # Shielded: nobody would look for it again. Bounded by the grace.
                with trio.CancelScope(shield=True):
                    await end_group(record.pid, limits.unload, None)
            raise CannotStart("the process of the earlier llamadoze has ended meanwhile")
        async with own(Child(leader, LogFile(log_file), limits.unload), hear) as child:
            yield child


def why_not_writable(log_file: Path) -> str | None:
    """Return why a log file cannot be written, or None."""
    try:
        log_file.touch(0o600)
    except OSError as error:
        return error.strerror or str(error)
    return None
