"""Suspends and resumes processes that use CUDA: with NVIDIA's driver, or NVIDIA's program.

Owns the order of the calls of CUDA's driver API ("Checkpointing"). Runs as a program of its own,
``python -I -S cudacheckpoint.py suspend PID ...``, so that it can be killed if the driver hangs. It
imports nothing of llamadoze.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Protocol

LIBRARY = "libcuda.so.1"
PROGRAM = "cuda-checkpoint"
LONGEST_LOCK = 10_000  # milliseconds for the GPU to finish the work of a process
RUNNING, LOCKED, CHECKPOINTED = STATES = ("running", "locked", "checkpointed")
CALL = "cuCheckpointProcess"
CALLS = [f"{CALL}{what}" for what in ("GetState", "Lock", "Checkpoint", "Restore", "Unlock")]
NO_CUDA = "no process of the model uses CUDA, or llamadoze may not trace the model: {}"
SIZE_OF_ARGUMENTS = 128  # bytes; the driver's structures have 64 or 72, all 0 but for a time limit


def command(action: str, pids: Sequence[int]) -> list[str]:
    """Return the command that suspends or resumes processes; those without CUDA are left out.

    Args:
        action: ``suspend`` or ``resume``.
        pids: all processes of a model.
    """
    return [sys.executable, "-I", "-S", __file__, action, *map(str, pids)]


class Refused(Exception):
    """The request was not carried out; the text is the driver's."""


class Way(Protocol):
    """A way to suspend and resume processes; processes without CUDA are left alone."""

    def suspend(self, pids: Sequence[int]) -> None:
        """Free all GPU memory of these processes; its contents wait in host memory.

        Raises:
            Refused: a process could not be suspended; the model cannot be trusted any more.
        """

    def resume(self, pids: Sequence[int]) -> None:
        """Let these processes continue from where they were suspended.

        Raises:
            Refused: a process could not be resumed, and never can be.
        """


class Driver:
    """The driver's own calls, from driver 570 on."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 -- ctypes finds its functions by name
        self._library = library
        self._call("cuInit", 0)

    @classmethod
    def load(cls) -> Driver:
        """Return the driver of this machine.

        Raises:
            Refused: there is no driver, or it lacks these calls.
        """
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Refused(str(error)) from None
        if missing := [name for name in CALLS if not hasattr(library, name)]:
            raise Refused(f"{LIBRARY} is older than 570: it has no {missing[0]}")
        return cls(library)

    def suspend(self, pids: Sequence[int]) -> None:
        """Lock all, then checkpoint all, so that no process waits for one that is gone."""
        states = self._states(pids)
        locked = [pid for pid, state in states.items() if state == LOCKED]
        try:
            for pid in (pid for pid, state in states.items() if state == RUNNING):
                self._take("Lock", pid)
                locked.append(pid)
            for pid in tuple(locked):
                self._take("Checkpoint", pid)
                locked.remove(pid)
        except Refused:
            for pid in locked:  # otherwise it could not even end properly
                with contextlib.suppress(Refused):
                    self._take("Unlock", pid)
            raise

    def resume(self, pids: Sequence[int]) -> None:
        """Restore all processes, then let all continue."""
        states = self._states(pids)
        for pid in (pid for pid, state in states.items() if state == CHECKPOINTED):
            self._take("Restore", pid)
        for pid in (pid for pid, state in states.items() if state != RUNNING):
            self._take("Unlock", pid)

    def _states(self, pids: Sequence[int]) -> dict[int, str]:
        """Return the states of the processes that use CUDA."""
        found, why = {}, ""
        for pid in pids:
            number = ctypes.c_int(-1)
            try:
                self._call(f"{CALL}GetState", pid, ctypes.byref(number))
            except Refused as error:  # it does not use CUDA, or llamadoze may not trace it
                why = f"{error}"
            else:
                found[pid] = _state(pid, number.value)
        if not found:
            raise Refused(NO_CUDA.format(why))
        return found

    def _take(self, action: str, pid: int) -> None:
        arguments = (ctypes.c_uint * (SIZE_OF_ARGUMENTS // 4))()
        if action == "Lock":
            arguments[0] = LONGEST_LOCK
        try:
            self._call(f"{CALL}{action}", pid, ctypes.byref(arguments))
        except Refused as error:
            raise Refused(f"cannot {action.lower()} process {pid}: {error}") from None

    def _call(self, name: str, *arguments: object) -> None:
        if result := getattr(self._library, name)(*arguments):
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(result, ctypes.byref(text))
            raise Refused((text.value or b"").decode() or f"CUDA error {result}")


def _state(pid: int, number: int) -> str:
    if number not in range(len(STATES)):
        raise Refused(f"process {pid} is in state {number}, from which it cannot recover")
    return STATES[number]


class Program:
    """NVIDIA's program ``cuda-checkpoint``, for drivers from 550 on that lack the calls.

    These drivers know only one action. It suspends a process that runs and resumes a process that
    is suspended.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def find(cls) -> Program:
        """Return the program found on PATH.

        Raises:
            Refused: there is none.
        """
        if path := shutil.which(PROGRAM):
            return cls(path)
        raise Refused(f"there is no {PROGRAM} on PATH")

    def suspend(self, pids: Sequence[int]) -> None:
        """Toggle each process; the program refuses those without CUDA, and does not say why."""
        refused = [reason for pid in pids if (reason := self._toggle(pid)) is not None]
        if len(refused) == len(pids):
            raise Refused(NO_CUDA.format(refused[-1] if refused else ""))

    resume = suspend

    def _toggle(self, pid: int) -> str | None:
        """Return what the program wrote if it failed, or None."""
        command = [self._path, "--toggle", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        lines = (done.stderr or done.stdout).strip().splitlines()
        return lines[-1] if lines else f"{PROGRAM} exited with status {done.returncode}"


def way() -> Way:
    """Return the driver's calls if it has them, else the program.

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


def main(arguments: Sequence[str]) -> int:
    """Carry out the arguments and return the exit status."""
    action, *pids = arguments
    try:
        found = way()
        {"suspend": found.suspend, "resume": found.resume}[action]([int(pid) for pid in pids])
    except Refused as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a program's last line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
