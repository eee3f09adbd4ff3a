"""What Slurm's commands are asked, and how their answers are read; the commands are stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from configschema import parse
from supervisor.clusters import slurm
from supervisor.clusters.marks import end_told, queued_told
from supervisor.clusters.slurm import Job, NotAnswered, Refused

CONFIG = """
clusters:
  hpc: {partition: gpu, account: us, sbatch: [--qos=high], folder: /shared}
allocations:
  pair: {gres: 'gpu:2', mem: 64G, cpus: 8, nodes: 2, time: 2-00:00:00, sbatch: [--exclusive]}
models:
  a: {cmd: server, in: pair}
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found before all others."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    return tmp_path


def say(folder: Path, program: str, text: str, status: int = 0) -> None:
    """Make a command that prints a text, and notes its arguments in a file."""
    file = folder / program
    script = f"echo \"$@ in job $SLURM_JOB_ID\" >> {folder}/asked\ncat <<'END'\n{text}\nEND\n"
    file.write_text(f"#!/bin/sh\n{script}exit {status}\n")
    file.chmod(0o755)


async def test_jobs_are_read_from_one_list(commands: Path) -> None:
    """The list has jobs that wait, run or have ended; times are seconds since 1970."""
    rows = [
        "12|RUNNING|n[3-5],n7|llamadoze.x.y|1000|5000|None",
        "13|PENDING||llamadoze.x.y|N/A|N/A|Resources",
        "11|TIMEOUT|n1|other|900|1000|TimeLimit",
        "slurm says something else",
    ]
    say(commands, "squeue", "\n".join(rows))
    found = await slurm.jobs()
    assert [job.id for job in found] == ["12", "13", "11"]
    assert (found[0].node, found[0].starts, found[0].ends, found[0].reason) == (
        *("n3", 1000.0, 5000.0),
        "",
    )
    assert [job.waits for job in found] == [False, True, False]
    assert [job.is_live for job in found] == [True, True, False]
    asked = (commands / "asked").read_text()
    assert asked.count("\n") == 1
    assert asked.rstrip().endswith("in job")  # without the job that the daemon runs in


async def test_steps_are_those_of_ours(commands: Path) -> None:
    """The scripts of jobs and the steps that Slurm adds are left out."""
    say(commands, "squeue", "12.0|token|n1\n12.batch|batch|n1\n12.extern|extern|n1")
    assert [step.id for step in await slurm.steps()] == ["12.0"]


async def test_a_failure_is_no_answer(commands: Path) -> None:
    """An unanswered question must not be read as an empty list."""
    say(commands, "squeue", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    with pytest.raises(NotAnswered, match="Unable to contact"):
        await slurm.jobs()


async def test_a_command_that_hangs_is_given_up_on(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze also ends what the command has started."""
    monkeypatch.setattr(slurm, "LONGEST_ANSWER", 0.2)
    (commands / "squeue").write_text("#!/bin/sh\nsleep 60\n")
    (commands / "squeue").chmod(0o755)
    with trio.fail_after(5), pytest.raises(NotAnswered, match="did not answer within"):
        await slurm.jobs()


async def test_a_command_that_is_not_there_is_no_answer(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the command."""
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(NotAnswered, match="squeue"):
        await slurm.jobs()


async def test_an_allocation_is_asked_for_with_all_that_the_file_says(commands: Path) -> None:
    """The operator's own options come last, so that they win."""
    holding = parse(CONFIG).config.models["a"].holding
    assert holding is not None
    say(commands, "sbatch", "Submitted to cluster hpc\n42;hpc")
    assert await slurm.submit(holding, "mark") == "42"
    asked = (commands / "asked").read_text()
    for option in (
        *("--partition=gpu", "--account=us", "--qos=high", "--chdir=/shared", "--gres=gpu:2"),
        *("--mem=64G", "--cpus-per-task=8", "--nodes=2", "--time=2-00:00:00", "--exclusive"),
        *("--comment=mark", "--job-name=llamadoze-pair"),
    ):
        assert option in asked


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", Refused),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm", NotAnswered),
        ("sbatch: error: Batch job submission failed: Socket timed out on send", NotAnswered),
        ("sbatch: error: Munge encode failed", NotAnswered),
    ],
)
async def test_a_refusal_is_told_from_silence(
    commands: Path, said: str, error: type[Exception]
) -> None:
    """A refusal is final, but after a silence the job may exist all the same."""
    holding = parse(CONFIG).config.models["a"].holding
    assert holding is not None
    say(commands, "sbatch", said, 1)
    with pytest.raises(error):
        await slurm.submit(holding, "mark")


async def test_what_has_ended_already_need_not_be_cancelled(commands: Path) -> None:
    """If there is nothing to cancel, llamadoze runs no command."""
    say(commands, "scancel", "scancel: error: Kill job error on job id 7: Invalid job id", 1)
    await slurm.cancel(["7"], "KILL")
    await slurm.cancel([])
    assert (commands / "asked").read_text().startswith("--signal=KILL 7")
    say(commands, "scancel", "scancel: error: Access/permission denied", 1)
    with pytest.raises(NotAnswered):
        await slurm.cancel(["7"])


async def test_a_nodes_address_is_the_one_that_slurm_uses(commands: Path) -> None:
    """Other machines may not know the node by its name."""
    say(commands, "scontrol", "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=n1")
    assert await slurm.address_of("n1") == "10.0.0.7"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n[3-5],n7", "n3"), ("a1,b[2-3]", "a1"), ("gpu[007,9]", "gpu007"), ("", "")],
)
def test_the_first_node_is_read_from_a_list(nodes: str, first: str) -> None:
    """Slurm shortens lists of nodes, as in `n[3-5],n7`."""
    assert slurm.first_node(nodes) == first


def test_how_a_job_waits_and_ends_is_said_in_slurms_words() -> None:
    """The text includes when the job is expected to start, if Slurm says so."""
    job = Job(id="5", state="PENDING", reason="Priority")
    assert queued_told(job, 0) == "job 5 waits in Slurm's queue (Priority)"
    assert "expected to start at" in queued_told(Job(id="5", state="PENDING", starts=60.0), 0)
    ended = Job(id="5", state="TIMEOUT", reason="TimeLimit")
    assert end_told(ended) == "its job 5 has ended: TIMEOUT (TimeLimit)"
