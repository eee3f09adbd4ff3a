"""Processes with CUDA are suspended and resumed in the right order, by the driver or a program."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.processes.cudacheckpoint import Driver, Program, Refused, Way, way

RUNNING, LOCKED, CHECKPOINTED, FAILED = range(4)  # the driver's numbers
STEPS = {
    "Lock": (RUNNING, LOCKED),
    "Checkpoint": (LOCKED, CHECKPOINTED),
    "Restore": (CHECKPOINTED, LOCKED),
    "Unlock": (LOCKED, RUNNING),
}
NAMES = {1: b"CUDA_ERROR_INVALID_VALUE", 800: b"CUDA_ERROR_NOT_PERMITTED"}


@attrs.define
class Library:
    """A stand-in for the driver's library; the processes in `states`, by number, use CUDA."""

    states: dict[int, int]
    fails: set[str] = attrs.field(factory=set)
    history: list[str] = attrs.field(factory=list)

    def cuInit(self, _: int) -> int:  # noqa: N802 -- NVIDIA's names
        return 0

    def cuGetErrorName(self, error: int, name: Any) -> int:  # noqa: N802
        name._obj.value = NAMES[error]
        return 0

    def cuCheckpointProcessGetState(self, pid: int, state: Any) -> int:  # noqa: N802
        state._obj.value = self.states.get(pid, -1)
        return 0 if pid in self.states else 1

    def __getattr__(self, name: str) -> Any:
        def take(pid: int, arguments: Any) -> int:
            action = name.removeprefix("cuCheckpointProcess")
            assert ctypes.sizeof(arguments._obj) >= 72  # as large as any of the driver's
            if f"{action} {pid}" in self.fails:
                return 800
            before, after = STEPS[action]
            assert self.states[pid] == before
            self.states[pid] = after
            self.history.append(f"{action} {pid} {arguments._obj[0]}")
            return 0

        return take


def test_all_are_locked_before_the_first_is_checkpointed() -> None:
    """Otherwise a process could wait for one that is gone; processes without CUDA are left out."""
    library = Library({1: RUNNING, 3: RUNNING})
    Driver(library).suspend([1, 2, 3])
    limit = 10_000  # milliseconds; no other call has an argument
    assert library.history == [
        f"Lock 1 {limit}",
        f"Lock 3 {limit}",
        "Checkpoint 1 0",
        "Checkpoint 3 0",
    ]


def test_all_are_restored_before_the_first_goes_on() -> None:
    """The steps are those of a suspension, in reverse order."""
    library = Library({1: CHECKPOINTED, 3: CHECKPOINTED})
    Driver(library).resume([1, 2, 3])
    assert library.history == ["Restore 1 0", "Restore 3 0", "Unlock 1 0", "Unlock 3 0"]


@pytest.mark.parametrize("state", [RUNNING, LOCKED, CHECKPOINTED])
def test_what_was_done_already_is_not_done_again(state: int) -> None:
    """A step may be repeated, and an earlier attempt may have been cut off anywhere."""
    library = Library({1: state})
    Driver(library).suspend([1])
    assert library.states == {1: CHECKPOINTED}
    library.states[1] = state
    Driver(library).resume([1])
    assert library.states == {1: RUNNING}


@pytest.mark.parametrize(
    ("fails", "told", "left"),
    [
        ({"Lock 2"}, "cannot lock process 2", {1: RUNNING, 2: RUNNING}),
        ({"Lock 2", "Unlock 1"}, "cannot lock process 2", {1: LOCKED, 2: RUNNING}),
        ({"Checkpoint 1"}, "cannot checkpoint process 1", {1: RUNNING, 2: RUNNING}),
        ({"Checkpoint 2"}, "cannot checkpoint process 2", {1: CHECKPOINTED, 2: RUNNING}),
    ],
)
def test_a_suspension_that_fails_leaves_nobody_locked(
    fails: set[str], told: str, left: dict[int, int]
) -> None:
    """A locked process could not end in order when asked to. The first cause is reported."""
    library = Library({1: RUNNING, 2: RUNNING}, fails)
    with pytest.raises(Refused, match=f"{told}: CUDA_ERROR_NOT_PERMITTED"):
        Driver(library).suspend([1, 2])
    assert library.states == left


@pytest.mark.parametrize("action", ["suspend", "resume"])
def test_no_process_with_cuda_is_a_failure(action: str) -> None:
    """Otherwise the model would count as asleep and still hold all its memory."""
    with pytest.raises(Refused, match=r"no process .* uses CUDA.*CUDA_ERROR_INVALID_VALUE"):
        getattr(Driver(Library({})), action)([1, 2])


@pytest.mark.parametrize("action", ["suspend", "resume"])
def test_a_process_that_the_driver_has_given_up_is_a_failure(action: str) -> None:
    """Such a process will not compute again, whatever else it does."""
    with pytest.raises(Refused, match="process 2 is in state 3"):
        getattr(Driver(Library({1: RUNNING, 2: FAILED})), action)([1, 2])


def program(folder: Path, script: str) -> Program:
    """Return NVIDIA's program as a script; ``$3`` is the pid."""
    file = folder / "cuda-checkpoint"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o700)
    return Program(str(file))


def test_the_program_toggles_each_process(tmp_path: Path) -> None:
    """The program refuses a process without CUDA, which does not matter."""
    script = f'[ $3 = 2 ] && exit 1; echo "$*" >> {tmp_path}/history'
    for action in ("suspend", "resume"):
        getattr(program(tmp_path, script), action)([1, 2, 3])
    told = (tmp_path / "history").read_text().splitlines()
    assert told == ["--toggle --pid 1", "--toggle --pid 3"] * 2


def test_a_program_that_toggles_nothing_is_a_failure(tmp_path: Path) -> None:
    """The error has what the program said."""
    with pytest.raises(Refused, match=r"no process .* uses CUDA.*: not supported"):
        program(tmp_path, "echo not supported >&2; exit 1").suspend([1, 2])


def test_the_driver_comes_before_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's calls need nothing that must be installed."""
    found: list[Way] = [Program("x")]
    monkeypatch.setattr(Driver, "load", lambda: found[0])
    assert way() is found[0]


def test_without_either_both_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator can fix either."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    monkeypatch.setenv("PATH", "/nowhere")
    words = "libcuda.so.1 is older than 570.*, and there is no cuda-checkpoint on PATH"
    with pytest.raises(Refused, match=words):
        way()
