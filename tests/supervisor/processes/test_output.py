"""A log file that a process writes to is followed, and kept short."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervisor.processes import output
from supervisor.processes.output import LogFile


async def test_a_file_is_followed_and_emptied_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line is heard once, and the last line is heard at the end."""
    monkeypatch.setattr(output, "LARGEST_FILE", 100)
    monkeypatch.setattr(output, "BETWEEN_LOOKS", 0.01)
    file = tmp_path / "log"
    heard: list[bytes] = []
    followed = LogFile(file)
    with file.open("ab", buffering=0) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(followed.follow, heard.append)
            for number in range(30):
                writer.write(b"line %02d\n" % number)
                await trio.sleep(0.02)
            writer.write(b"the end\n")
            await followed.aclose()
    expected = b"".join(b"line %02d\n" % number for number in range(30)) + b"the end\n"
    assert b"".join(heard) == expected
    assert file.stat().st_size <= 120


async def test_a_file_that_is_gone_says_nothing(tmp_path: Path) -> None:
    """A missing file is no error, and ends nothing."""
    heard: list[bytes] = []
    followed = LogFile(tmp_path / "log")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, heard.append)
        await followed.aclose()
    assert heard == []
