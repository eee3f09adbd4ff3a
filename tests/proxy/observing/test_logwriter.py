"""The log on its way to a reader that may be slow."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.observing.logwriter import MOST_UNWRITTEN, LogWriter

LINE = b"x" * 99 + b"\n"


@contextmanager
def pipe() -> Iterator[tuple[int, LogWriter]]:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file, os.fdopen(reading, "rb") as other:
        yield other.fileno(), LogWriter(file)


def all_of(descriptor: int, writer: LogWriter) -> bytes:
    """Read until nothing is left to write."""
    said = b""
    while True:
        if select.select([descriptor], [], [], 0.05)[0]:
            said += os.read(descriptor, 1 << 20)
        elif not writer._unwritten:
            return said


def until_end(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1 << 20):
            pass


def test_a_reader_that_keeps_up_gets_each_line_at_once() -> None:
    """The line is written in the same step, so that no line is lost if the daemon dies."""
    with pipe() as (reading, writer):
        writer.write(LINE)
        assert os.read(reading, 1000) == LINE


@pytest.mark.parametrize("line", [LINE, b"y" * 20_000 + b"\n"], ids=["short", "long"])
def test_a_reader_that_does_not_read_holds_up_nobody(line: bytes) -> None:
    """More lines than the pipe has room for are kept, and arrive in order later."""
    lines = [b"%06d " % number + line for number in range((512 << 10) // len(line))]
    with pipe() as (reading, writer):
        for one in lines:
            writer.write(one)
        assert all_of(reading, writer) == b"".join(lines)


def test_what_there_is_no_room_for_is_counted_and_said() -> None:
    """The count is written once there is room again; until then, memory stays bounded."""
    count = 3 * MOST_UNWRITTEN // len(LINE)
    with pipe() as (reading, writer):
        for _ in range(count):
            writer.write(LINE)
        assert sum(map(len, writer._unwritten)) <= MOST_UNWRITTEN
        said = all_of(reading, writer)
        writer.write(LINE)
        said += all_of(reading, writer)
    dropped = sum(int(number) for number in re.findall(rb"([0-9]+) lines dropped", said))
    assert dropped + said.count(LINE) == count + 1


def test_a_file_is_written_to_directly(tmp_path: Path) -> None:
    """A write to a file never waits for a reader."""
    with (tmp_path / "log").open("w") as file:
        writer = LogWriter(file)
        writer.write(LINE * 1000)
        assert (tmp_path / "log").read_bytes() == LINE * 1000


def test_a_reader_that_has_left_is_no_error() -> None:
    """The daemon goes on without a log."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        os.close(reading)
        writer = LogWriter(file)
        writer.write(LINE)
        writer.flush()


def test_a_terminal_that_stands_still_holds_up_nobody() -> None:
    """A terminal that is ready for a write may take only a part of the line."""
    main, other = pty.openpty()
    with os.fdopen(other, "w") as file:
        writer = LogWriter(file)
        for _ in range(1000):
            writer.write(b"x" * 300 + b"\n")
        assert writer._unwritten
        all_of(main, writer)  # otherwise its thread may write to the number's next file
    os.close(main)


def test_a_pipe_that_does_not_wait_loses_nothing() -> None:
    """Another process may have made the pipe non-blocking, because processes share this flag."""
    with pipe() as (reading, writer):
        os.set_blocking(writer._descriptor, False)
        for number in range(3000):
            writer.write(b"%06d " % number + LINE)
        said = all_of(reading, writer)
    assert said.count(LINE) == 3000


def test_the_last_lines_are_waited_for_and_what_is_missing_is_said() -> None:
    """At the end, there is no next line that could report the missing lines."""
    with pipe() as (reading, writer):
        for _ in range(3 * MOST_UNWRITTEN // len(LINE)):
            writer.write(LINE)
        reader = threading.Thread(target=until_end, args=(reading,))
        reader.start()
        writer.flush()
        assert not writer._unwritten
        assert not writer._dropped
    reader.join()


def test_the_last_count_is_said_though_there_is_no_room_for_it() -> None:
    """A notice stands before the line that just fits, so that the queue is above its limit."""
    with pipe() as (reading, writer):
        while not writer._dropped:
            writer.write(LINE)
        writer.write(LINE)
        said = os.read(reading, 1 << 15)
        written = -1
        while written != writer._written:  # the thread fills the pipe again
            written = writer._written
            time.sleep(0.1)
        room = MOST_UNWRITTEN - sum(map(len, writer._unwritten))
        writer.write(b"y" * (room - 1) + b"\n")
        writer.write(LINE)
        reader = threading.Thread(target=writer.flush)
        reader.start()
        said += all_of(reading, writer)
        reader.join()
    assert re.findall(rb"([0-9]+) lines dropped", said) == [b"2", b"1"]
    assert said.endswith(b"1 lines dropped: the reader of the log is too slow\n")
