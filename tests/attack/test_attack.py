"""The short form of the attack: all inputs, with bodies of half a megabyte, on one daemon."""

from __future__ import annotations

from pathlib import Path

from tests.attack.running import attacked, row_of


def test_nothing_that_arrives_holds_up_others(tmp_path: Path) -> None:
    """Other clients wait for 20 ms at most, and the daemon's memory stays within its limit."""
    breaches = [one for one in attacked(tmp_path, size=512 << 10, clients=10) if one.fault]
    assert not breaches, "\n".join(map(row_of, breaches))
