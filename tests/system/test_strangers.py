"""Another distribution may have a package of the same name: llamadoze says so in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("configschema", "supervisor", "proxy")
MAIN = "from proxy.command.cli import main; raise SystemExit(main())"


def wheel(folder: Path, name: str, version: str, package: str) -> Path:
    """Write a distribution with one package, in the form that PyPI has."""
    stem = f"{name.replace('.', '_')}-{version}"
    file = folder / f"{stem}-py3-none-any.whl"
    files = {
        f"{package}/__init__.py": "import a_thing_of_theirs\n" if package == "supervisor" else "",
        f"{package}/states.py": "",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        record = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
        archive.writestr(f"{stem}.dist-info/RECORD", record)
    return file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return the folder of installed packages, with llamadoze's packages in it."""
    home = packages_of(tmp_path)
    for package in PACKAGES:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, home / package, ignore=leave)
    return home


def install(file: Path, prefix: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps", "--ignore-installed", "--prefix"]
    command = [*pip, *options, str(prefix), str(file)]
    subprocess.run(command, check=True, capture_output=True)


def run(arguments: Sequence[str], *path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with these folders first on Python's path."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=path[0],
        capture_output=True,
        text=True,
        check=False,
    )


def packages_of(prefix: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))


@pytest.mark.parametrize(
    ("name", "version", "package"),
    [("supervisor", "4.3.0", "supervisor"), ("proxy.py", "2.4.10", "proxy")],
)
def test_a_stranger_of_our_name_is_named_at_every_command(
    site: Path, tmp_path: Path, name: str, version: str, package: str
) -> None:
    """The message has its version and a way out, and the command does nothing else."""
    config = tmp_path / "config.yaml"
    config.write_text("models: {m: {cmd: 'true', proxy: 'http://127.0.0.1:9'}}\n")
    assert run(["check", str(config)], site).returncode == 0
    install(wheel(tmp_path, name, version, package), tmp_path)
    for arguments in (["--version"], ["check", str(config)], ["--config", str(config)], ["schema"]):
        result = run(arguments, site)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"llamadoze: PyPI's {name} {version} is installed here too")
        assert "uv tool install llamadoze" in line
        assert "pipx install llamadoze" in line


@pytest.mark.parametrize("theirs_is_first", [True, False])
def test_a_stranger_elsewhere_is_named_if_it_is_what_python_finds(
    site: Path, tmp_path: Path, theirs_is_first: bool
) -> None:
    """Python finds an editable install after packages; a package behind llamadoze's is harmless."""
    prefix = tmp_path / "theirs"
    install(wheel(tmp_path, "supervisor", "4.2.5", "supervisor"), prefix)
    path = (packages_of(prefix), site) if theirs_is_first else (site, packages_of(prefix))
    result = run(["--version"], *path)
    assert result.returncode == theirs_is_first
    assert ("PyPI's supervisor 4.2.5" in result.stderr) is theirs_is_first
