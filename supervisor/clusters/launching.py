"""How a model server is started as a step: the command, the launcher that goes along, its report.

Owns what the launcher is told, and how its report is read from the output of the step. `node` has
what the launcher does on the node.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from configschema import Holding, Model
from configschema.keys.clusters import ANY_PORT, ports_of
from supervisor.clusters import node
from supervisor.clusters.node.launcher import ORDER, REPORT
from supervisor.clusters.slurm import Job, of_no_job, step_command, unset_of_a_job
from supervisor.processes.census import COMMAND
from supervisor.room.choice import CHOICES

LOOPBACK = "127.0.0.1"
MODULES = ("members", "measuring", "entrance", "launcher")  # in the order of their imports
PROGRAM = "LLAMADOZE_PROGRAM"  # the variable that contains the launcher
BOOTSTRAP = (
    "import json,os,sys,types\n"
    f"for name,text in json.loads(os.environ.pop('{PROGRAM}')):\n"
    " one=sys.modules[name]=types.ModuleType(name)\n"
    " exec(compile(text,name,'exec'),one.__dict__)\n"
    "one.main()"
)
"""The code for the Python of a node: it takes the launcher from its environment."""
BETWEEN_LOOKS = 0.02  # seconds
_OF_AN_END = re.compile(
    rb"^(?:slurmstepd-?\S*: error: \*\*\* STEP .* CANCELLED|srun: error: .*: task \d+: |"
    rb"srun: Job step aborted|srun: Terminating StepId|srun: forcing job termination)"
)
LONGEST_REPORT = 1 << 16  # bytes of output that are searched for the report


@attrs.frozen
class Report:
    """What a launcher reports at its start.

    Attributes:
        port: the port that the server is to listen on.
        entrance: the port of the entrance.
        job: the number of its job.
        step: the number of its step within the job.
        node: the node that it runs on.
        failure: why there is no server; empty if there is one.
    """

    port: int = 0
    entrance: int = 0
    job: str = ""
    step: str = ""
    node: str = ""
    failure: str = ""


@cache
def program() -> str:
    """Return the launcher's modules with their names, as JSON."""
    folder = Path(node.__file__).parent
    named = [(f"{node.__name__}.{name}", (folder / f"{name}.py").read_text()) for name in MODULES]
    return json.dumps(named)


def new_key() -> str:
    """Return a key for one life of a server."""
    return secrets.token_hex(32)


def port_wanted(model: Model) -> int:
    """Return the port in a model's address; 0 if the launcher finds one on the node."""
    try:
        return urlsplit(model.proxy).port or 0
    except ValueError:  # it is ${PORT}
        return 0


def launch_command(holding: Holding, job: Job, token: str) -> Sequence[str]:
    """Return the command that starts a launcher in a job.

    Args:
        holding: the holding of the job.
        job: the job, which runs.
        token: the name of the step.
    """
    options = (*holding.settings.srun, *_folder(holding), "--unbuffered", "--input=none")
    begin = step_command(job.id, job.node, token, options)
    # The variable that marks the commands of this machine must not mark processes of another.
    return [*begin, "env", "-u", COMMAND, holding.settings.python, "-c", BOOTSTRAP]


def beside_command(
    holding: Holding, job: str, at: str, name: str, argv: Sequence[str]
) -> Sequence[str]:
    """Return the command that runs a command in a job, beside the server.

    Args:
        holding: the holding of the job.
        job: the job's number.
        at: the node.
        name: the name of the step.
        argv: the command.
    """
    options = (*holding.settings.srun, *_folder(holding), "--input=none")
    begin = step_command(job, at, name, options)
    return [*unset_of_a_job(os.environ), *begin, "env", "-u", COMMAND, *argv]


def _folder(holding: Holding) -> list[str]:
    folder = holding.settings.folder
    return [f"--chdir={folder}"] if folder else []


def without_gpus_of_others(env: Mapping[str, str], seen: Collection[str]) -> dict[str, str]:
    """Return an environment without choices of GPUs that the job does not have, by their UUIDs."""

    def is_there(text: str) -> bool:
        return all(one in seen for one in text.split(",") if one.startswith("GPU-"))

    return {name: text for name, text in env.items() if name not in CHOICES or is_there(text)}


def launch_environment(
    env: Mapping[str, str], model: Model, holding: Holding, key: str, grace: float
) -> dict[str, str]:
    """Return the environment of the step, which tells the launcher what to run."""
    order = {
        "argv": list(model.cmd.argv),
        "host": LOOPBACK,
        "port": port_wanted(model),
        "ports": ports_of(holding.settings.ports) or ANY_PORT,
        "key": key,
        "grace": grace,
        "hidden": [COMMAND],
        # Slurm itself says which GPUs a step has. The model may be given some of them.
        "env": {name: env[name] for name in CHOICES if env.get(name) != os.environ.get(name)},
    }
    return {**of_no_job(env), PROGRAM: program(), ORDER: json.dumps(order)}


@attrs.define(eq=False)
class ReportReader:
    """Reads the output of a step up to the launcher's report, and passes on everything else.

    Attributes:
        hear: takes the output.
        there: set when the report is there.
    """

    hear: Callable[[bytes], None]
    there: trio.Event = attrs.field(factory=trio.Event, init=False)
    report: Report | None = attrs.field(default=None, init=False)
    _begun: bytes | None = attrs.field(default=b"", init=False)

    def write(self, output: bytes) -> None:
        """Take a piece of output."""
        if self._begun is None:
            self.hear(without_slurms_words(output))
            return
        *lines, self._begun = (self._begun + output).split(b"\n")
        for number, line in enumerate(lines):
            if self._found([line]):
                if before := line.partition(REPORT.encode())[0]:
                    self.hear(before + b"\n")
                rest = b"\n".join([*lines[number + 1 :], self._begun])
                self._begun = None
                self.hear(rest)
                return
            if line:  # the launcher writes an empty line before the report
                self.hear(line + b"\n")
        if len(self._begun) > LONGEST_REPORT:
            self.hear(self._begun)
            self._begun = b""

    async def find_in(self, file: Path) -> None:
        """Look for the report in a file, faster than the file is followed."""
        while not self._found(_beginning_of(file).split(b"\n")[:-1]):  # noqa: ASYNC110 -- a file
            await trio.sleep(BETWEEN_LOOKS)

    def _found(self, lines: Iterable[bytes]) -> bool:
        found = next(filter(None, map(report_in, lines)), None)
        if found:
            self.report = found
            self.there.set()
        return found is not None


def _beginning_of(file: Path) -> bytes:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(LONGEST_REPORT)
    return b""


def without_slurms_words(output: bytes) -> bytes:
    """Return output without Slurm's words at each end of a step, which sound like a cancel."""
    if b"slurmstepd" not in output and b"srun: " not in output:
        return output
    return b"".join(line for line in output.splitlines(True) if not _OF_AN_END.search(line))


def report_in(line: bytes) -> Report | None:
    """Return the report that a line of output contains; None if it contains none."""
    _, found, told_as = line.partition(REPORT.encode())  # other output may come before it
    if not found:
        return None
    try:
        told: dict[str, Any] = json.loads(told_as)
        return Report(**told)
    except (ValueError, TypeError):
        return None
