"""A few kills: `make kills` has three hundred."""

from __future__ import annotations

import pytest

from tests.bench import kills


def test_nothing_is_lost_of_a_daemon_that_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    """Its models are the next one's, or ended."""
    status = kills.main(["--kills", "6", "--lanes", "3", "--seed", "3", "--alone"])
    told = capsys.readouterr().out
    assert status == 0, told
    assert "6 kills" in told
