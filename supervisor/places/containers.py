"""Model servers in containers, whose processes belong to an engine: how they stop and are weighed.

Owns what an engine is asked. `configschema` reads what the command says of a container.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import trio

from configschema import Limits, Model
from configschema.keys.containers import Container, container_of
from configschema.keys.elsewhere import leaves_the_tree
from supervisor.processes.commands import run_command
from supervisor.processes.output import LogRing
from supervisor.processes.plainfiles import text_of

ENGINES_OWN_TIME = 10.0  # seconds for an engine beyond the grace that it gives to a container
LONGEST_INSPECTION = 2.0  # seconds for an engine to describe a container
LONGEST_ID = 64
LONGEST_SCRIPT = 20_000  # characters
_SHELL = re.compile(r"#!\s*\S*(?:/|\s)(?:ba|da|z|k)?sh\b")


@attrs.frozen
class StopCommand:
    """A command that ends a model's server from outside.

    Attributes:
        argv: the command.
        name: its name in the log.
        limit: seconds it may run.
    """

    argv: Sequence[str]
    name: str
    limit: float


def stop_command(model: Model, limits: Limits, pid: int | None = None) -> StopCommand | None:
    """Return the command that ends a model's server; None if its place does that.

    Args:
        model: the model.
        limits: the timeout of the command, and the grace that an engine gives to a container.
        pid: the id of its process, for ``${PID}``.
    """
    if model.cmd_stop:
        argv = model.cmd_stop.for_process(pid)
        if not any("${PID}" in word for word in argv):  # otherwise there is no process
            return StopCommand(argv, "cmdStop", limits.stop)
    container = container_in(model)
    stop = container and container.stop_argv(limits.unload, _id_in(container.cidfile))
    if container is None or not stop:
        return None
    limit = max(limits.stop, limits.unload + ENGINES_OWN_TIME)
    return StopCommand(stop, f"{container.program} stop", limit)


def is_outside(model: Model) -> bool:
    """Whether a model's server is not a descendant of its command, as far as that tells."""
    return leaves_the_tree(model.cmd.argv) or container_in(model) is not None


def container_in(model: Model) -> Container | None:
    """Return the container in a model's command, even if the command is a script in a file."""
    argv = model.cmd.argv
    if leaves_the_tree(argv):  # then the command's own words count, even if it is a script
        return container_of(argv)
    return container_of(("sh", "-c", _script_of(argv[:1])))


def _script_of(program: Sequence[str]) -> str:
    """Return the text of a program that is a shell script; empty for any other program."""
    path = shutil.which(program[0]) if program else None
    with contextlib.suppress(OSError, ValueError):
        text = text_of(Path(path), LONGEST_SCRIPT) if path else ""
        return text if _SHELL.match(text) else ""
    return ""


async def pid_of_container(model: Model, env: Mapping[str, str]) -> int | None:
    """Return the first process of a model's container, if it is visible on this machine."""
    container = container_in(model)
    argv = container and container.inspect_argv(_id_in(container.cidfile))
    if not argv:
        return None
    said = LogRing()
    with trio.move_on_after(LONGEST_INSPECTION):
        if await run_command(argv, env=env, on_output=said.write) is None:
            return _pid_in(said.text())
    return None


def _id_in(cidfile: str) -> str:
    """Return the id that an engine has written to this file."""
    with contextlib.suppress(OSError, ValueError):
        return text_of(Path(cidfile), LONGEST_ID).strip() if cidfile else ""
    return ""


def _pid_in(said: bytes) -> int | None:
    """Read a pid and an id; the engine may run the process on a machine of its own."""
    pid, _, container = said.decode(errors="replace").strip().partition(" ")
    with contextlib.suppress(OSError, ValueError):
        groups = Path(f"/proc/{int(pid)}/cgroup").read_text()
        return int(pid) if container and container in groups else None
    return None
