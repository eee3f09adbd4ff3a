"""Short commands around a model: putting it to sleep, waking it, asking it to stop.

Owns how a command's end is described. When a command has ended, its process group is gone. If its
caller is cancelled, which is how a timeout works, everything that it started is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

from supervisor.processes.child import CannotStart, open_child
from supervisor.processes.output import LogRing

SAID = 2048  # bytes of a command's output that are searched for its last line


async def run_told(
    argv: Sequence[str], *, env: Mapping[str, str], on_output: Callable[[bytes], None]
) -> str | None:
    """Run a command to its end; return why it failed, with the last line it wrote, or None."""
    said = LogRing(capacity=SAID)

    def hear(chunk: bytes) -> None:
        said.write(chunk)
        on_output(chunk)

    failure = await run_command(argv, env=env, on_output=hear)
    last = "".join(said.tail(1))
    return f"{failure} ({last})" if failure and last else failure


async def run_command(
    argv: Sequence[str], *, env: Mapping[str, str], on_output: Callable[[bytes], None]
) -> str | None:
    """Run a command to its end; return why it failed, or None."""
    try:
        async with open_child(argv, env=env, on_output=on_output, grace=0) as child:
            status = await child.exited()
            child.spare_strays()
    except CannotStart as error:
        return f"cannot be started: {error}"
    return None if status == 0 else describe_exit(status)


def describe_exit(status: int | None) -> str:
    """Say how a process ended: ``exited with status 1``, ``was killed by SIGKILL``."""
    if status is None:
        return "ended (exit status unknown, as an earlier llamadoze started it)"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
