"""Processes with CUDA are suspended and resumed: in the right order, by whichever way there is."""

from __future__ import annotations

import ctypes
from typing import Any

import attrs
import pytest

from supervisor.processes.cudacheckpoint import (
    CHECKPOINTED,
    LOCKED,
    RUNNING,
    STATES,
    Driver,
    Program,
    Refused,
    Way,
    resume,
    suspend,
    way,
)

STEPS = {
    "lock": (RUNNING, LOCKED),
    "checkpoint": (LOCKED, CHECKPOINTED),
    "restore": (CHECKPOINTED, LOCKED),
    "unlock": (LOCKED, RUNNING),
}


@attrs.define
class Machine:
    """A way whose processes are numbers: those in `states` use CUDA."""

    states: dict[int, str]
    fails: str = ""
    history: list[str] = attrs.field(factory=list)

    def state(self, pid: int) -> str:
        if pid not in self.states:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        return self.states[pid]

    def take(self, action: str, pid: int) -> None:
        if f"{action} {pid}" == self.fails:
            raise Refused("CUDA_ERROR_UNKNOWN")
        before, after = STEPS[action]
        assert self.states[pid] == before
        self.states[pid] = after
        self.history.append(f"{action} {pid}")


def test_all_are_locked_before_the_first_is_checkpointed() -> None:
    """Else one could wait for another that is gone already; those without CUDA are left out."""
    machine = Machine({1: RUNNING, 3: RUNNING})
    suspend(machine, [1, 2, 3])
    assert machine.history == ["lock 1", "lock 3", "checkpoint 1", "checkpoint 3"]


def test_all_are_restored_before_the_first_goes_on() -> None:
    """The same backwards."""
    machine = Machine({1: CHECKPOINTED, 3: CHECKPOINTED})
    resume(machine, [1, 2, 3])
    assert machine.history == ["restore 1", "restore 3", "unlock 1", "unlock 3"]


@pytest.mark.parametrize("state", [RUNNING, LOCKED, CHECKPOINTED])
def test_what_was_done_already_is_not_done_again(state: str) -> None:
    """A step may be repeated, and one before it may have been cut off anywhere."""
    machine = Machine({1: state})
    suspend(machine, [1])
    assert machine.states == {1: CHECKPOINTED}
    machine.states[1] = state
    resume(machine, [1])
    assert machine.states == {1: RUNNING}


def test_a_lock_that_fails_leaves_nobody_locked() -> None:
    """A locked process could not end in good order when it is asked to."""
    machine = Machine({1: RUNNING, 2: RUNNING}, fails="lock 2")
    with pytest.raises(Refused, match="cannot lock process 2: CUDA_ERROR_UNKNOWN"):
        suspend(machine, [1, 2])
    assert machine.states == {1: RUNNING, 2: RUNNING}


def test_no_process_with_cuda_is_a_failure() -> None:
    """The model would be taken for asleep, and hold all it has."""
    with pytest.raises(Refused, match=r"no process .* uses CUDA.*CUDA_ERROR_INVALID_VALUE"):
        suspend(Machine({}), [1, 2])


class Library:
    """A driver's library whose every call has this result."""

    def __init__(self, result: int = 0, state: int = 0) -> None:
        self.result, self.state = result, state
        self.calls: list[tuple[str, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        def call(pid: int, arguments: Any = None) -> int:
            if name == "cuGetErrorName":
                arguments._obj.value = b"CUDA_ERROR_NOT_PERMITTED"
            elif name.endswith("GetState"):
                arguments._obj.value = self.state
            elif name != "cuInit":
                assert ctypes.sizeof(arguments._obj) >= 72  # as large as any of the driver's
                self.calls.append((name, pid, arguments._obj[0]))
            return self.result

        return call


def test_the_driver_is_called_by_its_names_with_room_for_its_structures() -> None:
    """Only a lock has an argument: its time limit, in milliseconds."""
    library = Library()
    driver = Driver(library)
    for action in STEPS:
        driver.take(action, 7)
    assert library.calls == [
        ("cuCheckpointProcessLock", 7, 10_000),
        ("cuCheckpointProcessCheckpoint", 7, 0),
        ("cuCheckpointProcessRestore", 7, 0),
        ("cuCheckpointProcessUnlock", 7, 0),
    ]


@pytest.mark.parametrize(("number", "state"), [*enumerate(STATES), (3, "state 3")])
def test_the_drivers_states_have_names(number: int, state: str) -> None:
    """In its own order; it may have others."""
    assert Driver(Library(state=number)).state(1) == state


def test_what_the_driver_refuses_is_told_in_its_words() -> None:
    """They are what its documentation explains."""
    library = Library()
    driver = Driver(library)
    library.result = 800
    with pytest.raises(Refused, match="CUDA_ERROR_NOT_PERMITTED"):
        driver.take("lock", 1)


def test_the_driver_comes_before_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls need nothing that has to be installed."""
    found: list[Way] = [Program("x")]
    monkeypatch.setattr(Driver, "load", lambda: found[0])
    assert way() is found[0]


def test_without_either_both_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator can mend either."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    monkeypatch.setenv("PATH", "/nowhere")
    words = "libcuda.so.1 is older than 570.*, and there is no cuda-checkpoint on PATH"
    with pytest.raises(Refused, match=words):
        way()
