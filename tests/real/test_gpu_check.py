"""The GPU check on a machine without a GPU: a made-up GPU shows that the report is complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from supervisor.room import nvml

PEERS = Path(__file__).parents[1] / "peers"
COMPILER = shutil.which("cc") or ""
PARTS = (
    "NVML against nvidia-smi",
    "level 1",
    "Level 2",
    "in turns",
    "lies",
    "checkpoint",
    "by memory",
)


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the check with a made-up GPU."""
    environment = {
        **os.environ,
        "CUDA_STAND_IN": str(folder),
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(map(str, (PEERS / "nvml", PEERS.parents[1]))),
        "PATH": os.pathsep.join(map(str, (PEERS / "nvml", Path(sys.executable).parent)))
        + os.pathsep
        + os.environ["PATH"],
    }
    command = [sys.executable, "-m", "tests.real.gpu_check", "--device", "cpu", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def make_driver(folder: Path) -> None:
    target = folder / "libcuda.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", target, PEERS / "libcuda.c"], check=True)


@pytest.mark.parametrize(
    ("engine", "gigabytes"),
    [
        ("stand-in", "0.05"),
        pytest.param(
            "torch",
            "0.1",
            marks=[
                pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
                pytest.mark.timeout(300),
            ],
        ),
    ],
)
@pytest.mark.skipif(not COMPILER, reason="no C compiler for the driver's stand-in")
def test_the_report_has_every_part_and_its_verdict(
    tmp_path: Path, engine: str, gigabytes: str
) -> None:
    """If the model servers do what they should, every verdict is good."""
    make_driver(tmp_path)
    result = check(tmp_path, "--engine", engine, "--gigabytes", gigabytes, "--cycles", "2")
    report = result.stdout
    assert report.rstrip().endswith("Result: all good."), f"{report}\n{result.stderr}"
    assert result.returncode == 0
    titles = [line for line in report.splitlines() if line.startswith("## ")]
    assert len(titles) == len(PARTS)
    for title, part in zip(titles, PARTS, strict=True):
        assert part in title
    assert "| 2 |" in report
    assert "good: the lie is found" in report
    assert "good: the same words from the same process" in report


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Without a driver that can checkpoint, only that part of the check is bad."""
    result = check(tmp_path, "--engine", "stand-in", "--gigabytes", "0.02", "--cycles", "2")
    assert result.returncode == 1
    assert "## Sleep by the driver's checkpoint" in result.stdout
    assert "cuda-checkpoint suspend exited with status 1" in result.stdout
    assert result.stdout.rstrip().endswith("Result: 1 bad.")


def test_a_check_whose_time_is_over_tells_what_it_has(tmp_path: Path) -> None:
    """The check reports what it has when its time is over, and leaves no process."""
    endless = ("--gigabytes", "0.02", "--cycles", "1000000", "--limit", "9")
    result = check(tmp_path, "--engine", "stand-in", *endless)
    assert result.returncode == 1
    assert "the time was over after 9 s" in result.stdout
    assert "| GPU | a GPU that is made up" in result.stdout
    started = [Path("/proc", file.stem) for file in tmp_path.glob("*.bytes")]
    assert started
    assert not any(process.exists() for process in started)


@pytest.mark.skipif(bool(nvml.gpus()), reason="this machine has a GPU")
def test_without_a_gpu_the_check_says_so() -> None:
    """The check ends with status 1 and one line that says that it needs a GPU."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.real.gpu_check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("gpu-check needs an NVIDIA GPU")
    assert len(result.stderr.splitlines()) == 1
