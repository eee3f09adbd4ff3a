"""systemd accepts the units of docs/deploy without a message, and finds them well confined."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.command import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(one for one in SYSTEMD.rglob("*") if one.suffix in (".service", ".socket"))
ANALYZE = shutil.which("systemd-analyze")
OK = 4.9  # the highest exposure that systemd calls OK
WORST = {"llamadoze.service": OK, "user/llamadoze.service": 6.6}
"""For a user's unit, systemd counts capabilities that it cannot drop, but a user has none."""

with_systemd = pytest.mark.skipif(not ANALYZE, reason="there is no systemd-analyze")


def verified(folder: Path) -> subprocess.CompletedProcess[str]:
    files = sorted(one for one in folder.iterdir() if one.is_file())
    command = ["systemd-analyze", "verify", "--man=no", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def put_together(unit: Path, folder: Path) -> None:
    """Copy a unit, with a program and a user that exist here."""
    text = unit.read_text()
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    (folder / unit.name).write_text(text.replace("User=llamadoze", "User=daemon"))


@with_systemd
@pytest.mark.parametrize("name", ["llamadoze.service", "user/llamadoze.service"])
@pytest.mark.parametrize("drop_in", [False, True])
def test_systemd_understands_every_line(tmp_path: Path, name: str, drop_in: bool) -> None:
    """The check includes the socket, and the drop-in for models that outlive the daemon."""
    put_together(SYSTEMD / name, tmp_path)
    put_together(SYSTEMD / "llamadoze.socket", tmp_path)
    if drop_in:
        shutil.copytree(SYSTEMD / "llamadoze.service.d", tmp_path / "llamadoze.service.d")
    done = verified(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@with_systemd
@pytest.mark.parametrize("name", WORST)
def test_systemd_finds_it_well_confined(tmp_path: Path, name: str) -> None:
    """Models need what stays open: network, devices, and memory that is writable and executable."""
    put_together(SYSTEMD / name, tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", str(tmp_path / "llamadoze.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for llamadoze.service: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= WORST[name]


@pytest.mark.parametrize("unit", [one for one in UNITS if one.suffix == ".service"], ids=str)
def test_a_unit_starts_the_daemon_by_options_that_there_are(unit: Path) -> None:
    """If an option is renamed, the units must change, too."""
    started = re.search(r"^ExecStart=\S+ (\w+) (.*)$", unit.read_text(), re.MULTILINE)
    assert started
    command = cli.llamadoze.commands[started[1]]

    known = {option for one in command.params for option in one.opts}
    assert {word for word in started[2].split() if word.startswith("--")} <= known


def test_logrotate_understands_its_file(tmp_path: Path) -> None:
    """This test needs an installed logrotate."""
    if not (logrotate := shutil.which("logrotate")):
        pytest.skip("there is no logrotate")
    command = [logrotate, "--debug", "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [*command, str(DEPLOY / "logrotate" / "llamadoze")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error" not in done.stderr
