"""Ctrl-C and SIGTERM in a terminal: what a command leaves of it, and how it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, Process, started, wait_for, write
from tests.system.test_commands import home

CTRL_C = b"\x03"
ALTERNATE, HIDDEN = b"\x1b[?1049", b"\x1b[?25"  # each with h and l
ON, OFF = b"h", b"l"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Process]:
    models = {"slow": stub("--ready-after", "60"), "code": stub("--talk", "0.5")}
    with started("--config", write(folder, models=models), env=home(folder)) as process:
        process.chat("code")
        yield process


@attrs.define(eq=False)
class Terminal:
    """A command in a terminal of its own, as a shell starts it."""

    process: subprocess.Popen[bytes]
    screen: int
    own: int
    before: list[Any]
    seen: bytes = b""

    def until(self, words: bytes, count: int = 1) -> None:
        """Read until the command has written these bytes so many times."""
        while self.seen.count(words) < count:
            assert select.select([self.screen], [], [], 20)[0], self.seen
            self.seen += os.read(self.screen, 65536)

    def until_it_waits(self) -> None:
        """Wait until the command waits for a key; it would notice an earlier signal late."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")

    def press(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def end(self) -> int:
        """Read until the command ends, and return its status."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def _read(self, wait: float) -> None:
        while select.select([self.screen], [], [], wait)[0]:
            self.seen += os.read(self.screen, 65536)
            wait = 0

    @property
    def is_as_before(self) -> bool:
        """Whether modes, cursor and screen are those that the shell had."""
        modes = termios.tcgetattr(self.own) == self.before
        return modes and all(
            self.seen.rfind(code + usual) >= self.seen.rfind(code + other)
            for code, usual, other in ((ALTERNATE, OFF, ON), (HIDDEN, ON, OFF))
        )


@contextmanager
def terminal(folder: Path, *words: str) -> Iterator[Terminal]:
    """Run a command in a terminal whose Ctrl-C reaches it."""
    screen, own = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "-c", "-w", LLAMADOZE, *words],
        stdin=own,
        stdout=own,
        stderr=own,
        env={**os.environ, **home(folder), "TERM": "xterm", "INPUTRC": "/dev/null"},
    )
    found = Terminal(process, screen, own, termios.tcgetattr(own))
    try:
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        os.close(screen)
        os.close(own)


ENDS = [(signal.SIGINT, CTRL_C), (signal.SIGTERM, b"")]


@pytest.mark.parametrize(("number", "keys"), ENDS)
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("top", "--interval", "0.2"), b"in flight"),
        (("load", "slow"), b"starting"),
        (("run", "slow", "hello"), b"starting"),
        (("run", "code", "hello"), b"heading"),
        (("run", "code"), b">>> "),
        (("logs", "-f"), b"Listening"),
    ],
    ids=["top", "load", "run that waits", "run", "chat", "logs"],
)
def test_the_terminal_is_as_before_the_command(
    daemon: Process,
    folder: Path,
    words: tuple[str, ...],
    shown: bytes,
    number: signal.Signals,
    keys: bytes,
) -> None:
    """A shell sees that the signal has ended it."""
    with terminal(folder, *words) as command:
        command.until(shown)
        command.until_it_waits()
        if keys:
            command.press(keys)
        else:
            command.process.send_signal(number)
        assert command.end() == -number
        assert command.is_as_before, command.seen
        assert b"Traceback" not in command.seen


def test_ctrl_c_in_a_chat_ends_the_answer_only(daemon: Process, folder: Path) -> None:
    """At the prompt it ends the chat."""
    with terminal(folder, "run", "code") as command:
        command.until(b">>> ")
        for count in (2, 3):
            command.press(b"hello\r")
            command.until(b"heading", count - 1)
            command.press(CTRL_C)
            command.until(b">>> ", count)
            assert b"- one" not in command.seen
        command.until_it_waits()
        command.press(CTRL_C)
        assert command.end() == -signal.SIGINT
        assert command.is_as_before, command.seen


def test_ctrl_c_ends_a_chat_whose_model_starts_at_the_second_time(
    daemon: Process, folder: Path
) -> None:
    """The first ends the wait."""
    with terminal(folder, "run", "slow") as command:
        command.until(b">>> ")
        command.press(b"hello\r")
        command.until(b"starting")
        command.press(CTRL_C)
        command.until(b">>> ", 2)
        command.until_it_waits()
        command.press(CTRL_C)
        assert command.end() == -signal.SIGINT
        assert command.is_as_before, command.seen
