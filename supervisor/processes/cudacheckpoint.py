"""Suspends processes that use CUDA, and resumes them: by NVIDIA's driver, or by NVIDIA's program.

Owns the order of the calls: all processes are locked before the first is checkpointed. Runs as a
program of its own, ``python -I -S cudacheckpoint.py suspend PID ...``, so that a driver that hangs
can be killed; it imports nothing of ours. The calls are CUDA's driver API's ("Checkpointing").
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Protocol

LIBRARY = "libcuda.so.1"
PROGRAM = "cuda-checkpoint"
LONGEST_LOCK = 10_000  # milliseconds for the work that a process has given to the GPU
RUNNING, LOCKED, CHECKPOINTED = STATES = ("running", "locked", "checkpointed")
CALL = "cuCheckpointProcess"
CALLS = [f"{CALL}{what}" for what in ("GetState", "Lock", "Checkpoint", "Restore", "Unlock")]
SIZE_OF_ARGUMENTS = 128  # bytes; the driver's structures have 64 or 72, all 0 but for a time limit


def command(action: str, pids: Sequence[int]) -> list[str]:
    """Return the command that suspends processes or resumes them; those without CUDA are left out.

    Args:
        action: ``suspend`` or ``resume``.
        pids: of a model, all of them.
    """
    return [sys.executable, "-I", "-S", __file__, action, *map(str, pids)]


class Refused(Exception):
    """What was asked for was not done; the text is the driver's."""


class Way(Protocol):
    """A way to suspend and resume one process."""

    def state(self, pid: int) -> str:
        """Return how a process stands.

        Raises:
            Refused: it does not use CUDA, or may not be traced by us.
        """

    def take(self, action: str, pid: int) -> None:
        """Take one action: lock, checkpoint, restore, unlock.

        Raises:
            Refused: it was not done.
        """


class Driver:
    """The driver's own calls, from 570 on."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 -- ctypes finds its functions by name
        self._library = library
        self._call("cuInit", 0)

    @classmethod
    def load(cls) -> Driver:
        """Return the driver of this machine.

        Raises:
            Refused: there is none, or it has not these calls.
        """
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Refused(str(error)) from None
        if missing := [name for name in CALLS if not hasattr(library, name)]:
            raise Refused(f"{LIBRARY} is older than 570: it has no {missing[0]}")
        return cls(library)

    def state(self, pid: int) -> str:
        """Ask the driver."""
        found = ctypes.c_int(-1)
        self._call(f"{CALL}GetState", pid, ctypes.byref(found))
        return STATES[found.value] if 0 <= found.value < len(STATES) else f"state {found.value}"

    def take(self, action: str, pid: int) -> None:
        """Let the driver take it."""
        arguments = (ctypes.c_uint * (SIZE_OF_ARGUMENTS // 4))()
        if action == "lock":
            arguments[0] = LONGEST_LOCK
        self._call(f"{CALL}{action.title()}", pid, ctypes.byref(arguments))

    def _call(self, name: str, *arguments: object) -> None:
        if result := getattr(self._library, name)(*arguments):
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(result, ctypes.byref(text))
            raise Refused((text.value or b"").decode() or f"CUDA error {result}")


class Program:
    """NVIDIA's program ``cuda-checkpoint``."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def find(cls) -> Program:
        """Return the program that is on the PATH.

        Raises:
            Refused: there is none.
        """
        if path := shutil.which(PROGRAM):
            return cls(path)
        raise Refused(f"there is no {PROGRAM} on PATH")

    def state(self, pid: int) -> str:
        """Ask the program; older ones cannot tell and are taken at their exit status."""
        return self._run("--get-state", pid).strip() or RUNNING

    def take(self, action: str, pid: int) -> None:
        """Let the program take it."""
        limit = ["--timeout", str(LONGEST_LOCK)] if action == "lock" else []
        self._run("--action", pid, action, *limit)

    def _run(self, option: str, pid: int, *more: str) -> str:
        command = [self._path, option, *more, "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise Refused(lines[-1] if lines else f"{PROGRAM} exited with {done.returncode}")
        return done.stdout


def way() -> Way:
    """Return the driver's calls where it has them, else the program.

    Raises:
        Refused: there is neither.
    """
    try:
        return Driver.load()
    except Refused as no_driver:
        try:
            return Program.find()
        except Refused as no_program:
            raise Refused(f"{no_driver}, and {no_program}") from None


def suspend(one_way: Way, pids: Sequence[int]) -> None:
    """Give all GPU memory of these processes back; what it held waits in host memory.

    Raises:
        Refused: one of them could not be; the model is not to be trusted any more.
    """
    states = _states(one_way, pids)
    locked: list[int] = []
    try:
        for pid in (pid for pid, state in states.items() if state == RUNNING):
            _take(one_way, "lock", pid)
            locked.append(pid)
    except Refused:
        for pid in locked:  # or it could not even end in good order
            _take(one_way, "unlock", pid)
        raise
    for pid in (pid for pid, state in states.items() if state != CHECKPOINTED):
        _take(one_way, "checkpoint", pid)


def resume(one_way: Way, pids: Sequence[int]) -> None:
    """Let these processes go on from where they were suspended.

    Raises:
        Refused: one of them could not be resumed, and never can.
    """
    states = _states(one_way, pids)
    for pid in (pid for pid, state in states.items() if state == CHECKPOINTED):
        _take(one_way, "restore", pid)
    for pid in (pid for pid, state in states.items() if state != RUNNING):
        _take(one_way, "unlock", pid)


def _states(one_way: Way, pids: Sequence[int]) -> dict[int, str]:
    """Return how those of the processes stand that use CUDA."""
    found, why = {}, ""
    for pid in pids:
        try:
            found[pid] = one_way.state(pid)
        except Refused as error:
            why = f"{error}"
    if not found:
        raise Refused(f"no process of the model uses CUDA, or none may be traced: {why}")
    return found


def _take(one_way: Way, action: str, pid: int) -> None:
    try:
        one_way.take(action, pid)
    except Refused as error:
        raise Refused(f"cannot {action} process {pid}: {error}") from None


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit status."""
    action, *pids = arguments
    try:
        {"suspend": suspend, "resume": resume}[action](way(), [int(pid) for pid in pids])
    except Refused as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a program's last line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
