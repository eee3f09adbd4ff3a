"""A few kills; `make kills` makes three hundred."""

from __future__ import annotations

import pytest

from tests.bench import kills


def test_nothing_is_lost_of_a_daemon_that_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    """The next daemon takes over the processes of the killed one, or ends them."""
    status = kills.main(["--kills", "6", "--lanes", "3", "--seed", "3", "--alone"])
    told = capsys.readouterr().out
    assert status == 0, told
    assert "6 kills" in told
