"""The short form: all attacks, with bodies of half a megabyte, on one daemon."""

from __future__ import annotations

from pathlib import Path

from tests.attack.running import attacked, row_of


def test_nothing_that_arrives_holds_up_others(tmp_path: Path) -> None:
    """Nobody waits for longer than 20 ms, and the memory stays what it was."""
    breaches = [one for one in attacked(tmp_path, size=512 << 10, clients=10) if one.fault]
    assert not breaches, "\n".join(map(row_of, breaches))
