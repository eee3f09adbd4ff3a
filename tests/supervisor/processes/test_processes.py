"""Real processes and their descendants: everything that was started is ended in time."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import pytest
import trio

from supervisor.processes.child import open_child
from supervisor.processes.commands import run_told
from supervisor.processes.output import LogRing
from tests.conftest import processes_with


@pytest.fixture
def mark() -> Iterator[str]:
    """A word for command lines; no process with this word may live after the test."""
    word = f"mark-{uuid.uuid4().hex}"
    yield word
    assert processes_with(word) == []


async def started(output: list[bytes], word: bytes) -> None:
    with trio.fail_after(5):
        while word not in b"".join(output):
            await trio.sleep(0.005)


async def end_of(script: str, mark: str, grace: float) -> tuple[float, bytes]:
    """Run a script until it says "up", end it; return the seconds of its end and its output."""
    output: list[bytes] = []
    argv = ["sh", "-c", script, mark]
    async with open_child(argv, env=dict(os.environ), on_output=output.append, grace=grace):
        await started(output, b"up")
        began = time.monotonic()
    return time.monotonic() - began, b"".join(output)


@pytest.mark.parametrize(
    "script",
    [
        "echo up; exec sleep 60",
        "sleep 60 & echo up; wait",
        "(sleep 60; true) & echo up; wait",
        "trap 'echo bye; exit 0' TERM; sleep 60 & echo up; wait",
    ],
)
async def test_a_process_that_obeys_is_gone_at_once(script: str, mark: str) -> None:
    """Everything that it has started ends, too, without waiting for the grace."""
    took, _ = await end_of(script, mark, grace=10)
    assert took < 1


async def test_what_it_says_at_its_end_is_still_heard(mark: str) -> None:
    """The log has the last output of a process that ends."""
    _, output = await end_of("trap 'echo bye; exit 0' TERM; sleep 60 & echo up; wait", mark, 10)
    assert output.endswith(b"bye\n")


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM; echo up; while :; do sleep 60; done",
        "(trap '' TERM; echo up; while :; do sleep 60; done) & wait",
    ],
)
async def test_a_process_that_ignores_the_request_is_killed_after_the_grace(
    script: str, mark: str
) -> None:
    """The process that ignores it need not be the leader."""
    took, _ = await end_of(script, mark, grace=0.3)
    assert 0.3 <= took < 1.3


async def test_a_stopped_process_is_killed_after_the_grace(mark: str) -> None:
    """SIGSTOP holds back SIGTERM, but not SIGKILL."""
    took, _ = await end_of("echo up; kill -STOP $$", mark, grace=0.3)
    assert 0.3 <= took < 1.3


async def test_what_a_crash_leaves_behind_is_ended(mark: str) -> None:
    """The leader has ended by itself, but its children still hold memory."""
    argv = ["sh", "-c", "sleep 60 & exit 7", mark]
    async with open_child(argv, env=dict(os.environ), on_output=lambda _: None, grace=5) as child:
        assert await child.exited() == 7


async def test_much_output_holds_nobody_up(mark: str) -> None:
    """llamadoze reads the flooded pipe all the time."""
    took, output = await end_of(
        "head -c 20000000 /dev/zero | tr '\\0' x; echo up; sleep 60", mark, 5
    )
    assert len(output) > 20_000_000
    assert took < 1


async def test_a_cut_forgoes_the_grace(mark: str) -> None:
    """An operator who cannot wait may skip the grace."""
    script = "trap '' TERM; echo up; while :; do sleep 60; done"
    output: list[bytes] = []
    argv = ["sh", "-c", script, mark]
    env = dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=60) as child:
        await started(output, b"up")
        child.cut()
        began = time.monotonic()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "sleep 60 & wait",
        "trap '' TERM; sleep 60 & wait",
        "(trap '' TERM; sleep 60) & (sleep 60; sleep 60) & wait",
    ],
)
async def test_a_command_whose_time_is_up_is_gone_with_its_group(script: str, mark: str) -> None:
    """This includes what a shell started in the background, and what ignores SIGTERM."""
    began = time.monotonic()
    with trio.move_on_after(0.3) as scope:
        await run_told(["sh", "-c", script, mark], env=dict(os.environ), on_output=lambda _: None)
    assert scope.cancelled_caught
    assert 0.3 <= time.monotonic() - began < 1
    assert processes_with(mark) == []


async def test_a_command_that_ends_well_leaves_nothing(mark: str) -> None:
    """What the command left in the background is ended, too."""
    output: list[bytes] = []
    argv = ["sh", "-c", "echo done; sleep 60 & exit 0", mark]
    env = dict(os.environ)
    assert await run_told(argv, env=env, on_output=output.append) is None
    assert b"".join(output) == b"done\n"


@pytest.mark.parametrize(
    ("argv", "failure"),
    [
        (["sh", "-c", "exit 22"], "exited with status 22"),
        (["sh", "-c", "kill -9 $$"], "was killed by SIGKILL"),
        (["/nonexistent/x"], "cannot be started: No such file or directory: '/nonexistent/x'"),
        (["/"], "cannot be started: Permission denied: '/'"),
    ],
)
async def test_a_commands_failure_is_said_in_words(argv: list[str], failure: str) -> None:
    """The text is the status, the signal, or why the command could not be started."""
    env = dict(os.environ)
    found = await run_told(argv, env=env, on_output=lambda _: None)
    assert found == failure


async def test_cancelling_at_any_moment_of_a_start_leaves_nothing(mark: str) -> None:
    """This includes the moment between the process's start and the first line of its owner."""
    for delay in (0, 0.0005, 0.001, 0.002, 0.004):
        for _ in range(4):
            with trio.move_on_after(delay):
                argv = ["sh", "-c", "sleep 60 & wait", mark]
                async with open_child(
                    argv, env=dict(os.environ), on_output=lambda _: None, grace=1
                ):
                    await trio.sleep_forever()


def test_last_words_are_cut_and_harmless() -> None:
    """No line fills a log, and no line moves a terminal's cursor."""
    ring = LogRing()
    ring.write(b"x" * 90_000 + b"\x1b[2J\x07 the end\n\xff\n\n")
    long, odd = ring.tail(3)
    assert (len(long) <= 300, long.endswith("x the end")) == (True, True)
    assert odd == "\ufffd"


def test_controls_are_left_out() -> None:
    """Controls of one byte are left out, and so are the two-byte controls of UTF-8."""
    ring = LogRing()
    ring.write("a\0b\x07c\x9b1md\x85e\tf\u00a0g\u00e9\n".encode())
    assert ring.text().decode() == "abcde\tf\u00a0g\u00e9\n"


@pytest.mark.parametrize("cut", range(1, 14))
def test_controls_are_left_out_wherever_a_chunk_ends(cut: int) -> None:
    """A chunk may end within a letter; an escape before another control is no sequence."""
    ring, text = LogRing(), b"\xc2\x9b31mr\xc2\x85e\x1b\x01d\xc2\xa0\n"
    ring.write(text[:cut])
    ring.write(text[cut:])
    assert ring.text() == b"red\xc2\xa0\n"


@pytest.mark.parametrize("cut", range(1, 12))
def test_colours_are_left_out_wherever_a_chunk_ends(cut: int) -> None:
    """A chunk may end within a sequence; a lone escape that begins nothing does no harm."""
    ring, text = LogRing(), b"\x1b[1;31mred\x1b[0m"
    ring.write(text[:cut])
    ring.write(text[cut:])
    assert ring.text() == b"red"
    ring.write(b"\x1b" + b"x" * 300 + b"end")
    assert ring.text().endswith(b"xend")
