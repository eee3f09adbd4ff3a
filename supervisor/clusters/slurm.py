"""The questions to Slurm, asked with its own commands, and how its answers are read.

Owns the commands, their timeout, and the difference between "there is no such job" and "Slurm does
not answer". What follows from either is decided elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import attrs
import trio

from configschema import Holding
from supervisor.processes.commands import run_command

LONGEST_ANSWER = 15.0  # seconds; after that a command is given up, and asked again later
MOST_SAID = 300  # characters of a command's output that are shown
JOB_FORMAT = "%A|%T|%N|%k|%S|%e|%r"
STEP_FORMAT = "%i|%j|%N"
OF_ANOTHER = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SRUN_")
"""How variables begin that describe the job in which the daemon itself may run, or that change what
Slurm's commands do and print."""
OF_THE_SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
"""How those of them begin that say where the site's Slurm is."""
WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"})
RUNNING = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"})
ENDED_ALREADY = ("Invalid job id", "already completing or completed")
UNREACHED = (
    *("Unable to contact", "Socket timed out", "Zero Bytes", "unavailable", "onnection"),
    *("did not answer", "unge", "resolve", "DNS", "configuration source", "Temporar", "temporar"),
)
"""Words of sbatch when Slurm could not be reached, and did not refuse: it may be asked again."""


class NotAnswered(Exception):
    """Slurm did not answer, or did not understand: nothing is known. The text is Slurm's."""


class Refused(Exception):
    """Slurm does not accept a job; the text says why."""


@attrs.frozen(kw_only=True)
class Job:
    """A job as Slurm lists it.

    Attributes:
        id: its number.
        state: Slurm's word for its state.
        node: the first of its nodes, once it has nodes.
        comment: the mark that it was given.
        starts: when it began or is expected to begin, in seconds since 1970; None if not known.
        ends: when its time limit is reached; None without a limit.
        reason: why it waits, or how it ended, in Slurm's word.
    """

    id: str
    state: str
    node: str = ""
    comment: str = ""
    starts: float | None = None
    ends: float | None = None
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is in the queue, or its nodes are being prepared."""
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        """Whether steps can be started in it."""
        return self.state in RUNNING

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.waits or self.runs


@attrs.frozen(kw_only=True)
class Step:
    """A step that runs.

    Attributes:
        id: the job's number and its own, as in ``12.0``.
        name: the mark that it was given.
        node: the first of its nodes.
    """

    id: str
    name: str
    node: str


def environment() -> dict[str, str]:
    """Return the environment of Slurm's commands, without variables that change their output."""
    return {**of_no_job(os.environ), "SLURM_TIME_FORMAT": "%s"}


def of_no_job(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without variables of a job or that change what Slurm's commands do."""
    return {name: text for name, text in env.items() if not _is_of_a_job(name)}


def unset_of_a_job(env: Iterable[str]) -> list[str]:
    """Return the beginning of a command that runs another command without these variables."""
    return ["env", *(f"--unset={name}" for name in env if _is_of_a_job(name))]


def _is_of_a_job(name: str) -> bool:
    return name.startswith(OF_ANOTHER) and not name.startswith(OF_THE_SITE)


async def jobs() -> list[Job]:
    """Return the jobs of this user, including those that ended a short while ago.

    Raises:
        NotAnswered: that is not known.
    """
    rows = await _rows(("squeue", "--me", "--noheader", "--states=all", f"--format={JOB_FORMAT}"))
    return [
        Job(
            id=number,
            state=state,
            node=first_node(nodes),
            comment=comment,
            starts=_time(starts),
            ends=_time(ends),
            reason="" if reason == "None" else reason,
        )
        for number, state, nodes, comment, starts, ends, reason in rows
    ]


async def steps() -> list[Step]:
    """Return the steps of this user's jobs, without the steps that Slurm itself makes.

    Raises:
        NotAnswered: that is not known.
    """
    command = ("squeue", "--me", "--steps", "--noheader", f"--format={STEP_FORMAT}")
    found = [
        Step(id=one, name=name, node=first_node(node)) for one, name, node in await _rows(command)
    ]
    return [one for one in found if one.id.rpartition(".")[2].isdecimal()]


async def submit(holding: Holding, comment: str) -> str:
    """Request an allocation; return the job's number.

    Raises:
        Refused: Slurm will never grant it.
        NotAnswered: Slurm may have accepted it, or not.
    """
    try:
        said = await _said(submission(holding, comment))
    except NotAnswered as error:
        if any(word in str(error) for word in UNREACHED):
            raise
        raise Refused(str(error)) from error
    number = said.strip().rpartition("\n")[2].partition(";")[0]
    if number.isdecimal():
        return number
    raise NotAnswered(_short(said))


def submission(holding: Holding, comment: str) -> list[str]:
    """Return the command that requests an allocation, whose job does nothing but hold it."""
    wanted, settings = holding.allocation, holding.settings
    options = {
        "--partition": settings.partition,
        "--account": settings.account,
        "--chdir": settings.folder,
        "--gres": wanted.gres,
        "--mem": wanted.mem,
        "--cpus-per-task": f"{wanted.cpus or ''}",
        "--time": wanted.time,
    }
    return [
        *("sbatch", "--parsable", f"--job-name=llamadoze-{holding.name}", f"--comment={comment}"),
        *("--output=/dev/null", "--no-requeue", f"--nodes={wanted.nodes}"),
        *(f"{option}={value}" for option, value in options.items() if value),
        *settings.sbatch,
        *wanted.sbatch,
        "--wrap=exec sleep infinity",
    ]


async def cancel(ids: Iterable[str], signal: str = "") -> None:
    """End jobs or steps, or send them a signal; those that have ended are ignored.

    Raises:
        NotAnswered: they may live.
    """
    if found := list(ids):
        await _ended(["scancel", *([f"--signal={signal}"] if signal else []), *found])


async def _ended(command: Sequence[str]) -> None:
    try:
        await _said(command)
    except NotAnswered as error:
        if not any(word in str(error) for word in ENDED_ALREADY):
            raise


async def address_of(node: str) -> str:
    """Return the address by which Slurm itself reaches a node.

    Raises:
        NotAnswered: that is not known.
    """
    said = await _said(("scontrol", "--oneliner", "show", "node", node))
    facts = dict(word.partition("=")[::2] for word in said.split() if "=" in word)
    return facts.get("NodeAddr") or node


def step_command(job: str, node: str, name: str, options: Sequence[str] = ()) -> list[str]:
    """Return the beginning of a command that runs another one in a job, beside what runs there."""
    return [
        *("srun", "--quiet", f"--jobid={job}", "--overlap", "--nodes=1", "--ntasks=1"),
        *(f"--nodelist={node}", f"--job-name={name}", "--kill-on-bad-exit=0", "--export=ALL"),
        *options,
    ]


def first_node(nodes: str) -> str:
    """Return the first of some nodes, as Slurm lists them: ``n[3-5],n7`` begins with n3."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return nodes.partition(",")[0]
    first = rest.replace("]", ",").replace("-", ",").partition(",")[0]
    return head + first


async def _rows(command: Sequence[str]) -> list[list[str]]:
    """Return the rows that a command lists, without any other output."""
    width = command[-1].count("|")
    lines = (await _said(command)).splitlines()
    return [line.split("|", width) for line in lines if line.count("|") >= width]


async def _said(command: Sequence[str]) -> str:
    """Return the output of a command.

    Raises:
        NotAnswered: the command failed.
    """
    parts: list[bytes] = []
    failure: str | None = f"did not answer within {LONGEST_ANSWER:g}s"
    with trio.move_on_after(LONGEST_ANSWER):
        failure = await run_command(command, env=environment(), on_output=parts.append)
    said = b"".join(parts).decode(errors="replace")
    if failure is not None:
        raise NotAnswered(f"{command[0]}: {_short(said) or failure}")
    return said


def _short(said: str) -> str:
    """Return the output of a command in one line, without its own name before each part."""
    lines = (line.partition("error: ")[2] or line for line in said.splitlines())
    return "; ".join(filter(None, map(str.strip, lines)))[:MOST_SAID]


def _time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
