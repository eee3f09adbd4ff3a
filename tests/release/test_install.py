"""A release installs with uv and with pipx where nothing else is installed, and serves there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from importlib.metadata import requires
from pathlib import Path
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement

from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, write

pytest.importorskip("cyclonedx", reason="the extra 'release' is not installed")
from tests.release.build import NAME, PROJECT, ROOT, build

pytestmark = [pytest.mark.release, pytest.mark.timeout(300)]
EXAMPLE = ROOT / "config.example.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The wheel, the sdist, and the list of what the wheel contains and needs."""
    return build(tmp_path_factory.mktemp("dist"))


def clean(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a user without any of this project's settings."""
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    indexes = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    own = {name: os.environ[name] for name in kept if name in os.environ}
    return {"HOME": str(folder), "UV_NATIVE_TLS": "1", **own, **indexes, **more}


def tool(name: str, *arguments: str | Path, env: dict[str, str]) -> None:
    program = Path(sys.executable).with_name(name)
    subprocess.run([program, *arguments], check=True, env=env, capture_output=True)


def installed_by_uv(package: Path, folder: Path) -> Path:
    env = clean(
        folder,
        UV_TOOL_DIR=str(folder / "tools"),
        UV_TOOL_BIN_DIR=str(folder / "bin"),
        UV_CONSTRAINT=str(ROOT / "constraints.txt"),
    )
    tool("uv", "tool", "install", "--python", sys.executable, package, env=env)
    return folder / "bin" / "llamadoze"


def installed_by_pipx(package: Path, folder: Path) -> Path:
    env = clean(
        folder,
        PIPX_HOME=str(folder / "pipx"),
        PIPX_BIN_DIR=str(folder / "bin"),
        PIPX_MAN_DIR=str(folder / "man"),
        PIP_CONSTRAINT=str(ROOT / "constraints.txt"),
    )
    tool("pipx", "install", "--python", sys.executable, package, env=env)
    return folder / "bin" / "llamadoze"


def said_by(command: Path, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [command, *arguments], env=env, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("installed", [installed_by_uv, installed_by_pipx])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_and_serves(
    built: tuple[Path, Path, Path],
    tmp_path: Path,
    installed: Callable[[Path, Path], Path],
    kind: str,
) -> None:
    """The commands, a model's answer, the page and a clean end work."""
    command = installed(built[kind == "sdist"], tmp_path / "home")
    env = clean(tmp_path / "home", XDG_STATE_HOME=str(tmp_path / "state"))
    assert said_by(command, "version", env=env) == f"llamadoze {PROJECT['version']}\n"
    assert "good, " in said_by(command, "check", str(EXAMPLE), env=env)
    assert json.loads(said_by(command, "schema", env=env))["properties"]["models"]
    file = write(tmp_path, models={"a": stub()})
    with started("serve", "--config", file, command=[str(command)], env=env) as daemon:
        assert daemon.chat("a")[0] == 200
        assert "ready" in said_by(command, "ps", env=env)
        assert_page(daemon)
        assert daemon.end(signal.SIGTERM)[0] == 0


def assert_page(daemon: Process) -> None:
    with urlopen(f"http://127.0.0.1:{daemon.port}/ui/", timeout=5) as reply:
        text = reply.read().decode()
    scripts = re.findall(r'src="([^"]+\.js)"', text)
    assert scripts
    for script in scripts:
        with urlopen(f"http://127.0.0.1:{daemon.port}/ui/{script.removeprefix('/ui/')}") as reply:
            assert reply.status == 200


def test_a_wheel_has_what_runs_and_nothing_else(built: tuple[Path, Path, Path]) -> None:
    """The wheel has the packages, the page and the licences."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        metadata = Parser().parsestr(wheel.read(f"{NAME}.dist-info/METADATA").decode())
    ours = {"configschema", "supervisor", "proxy", f"{NAME}.dist-info"}
    assert {name.partition("/")[0] for name in names} == ours
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert "proxy/page/index.html" in names
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]
    assert metadata["License-Expression"] == "MIT AND Apache-2.0"
    assert metadata["Version"] == PROJECT["version"]


def test_an_sdist_has_what_builds_and_explains(built: tuple[Path, Path, Path]) -> None:
    """The sdist also has the tests, for those who package llamadoze."""
    with tarfile.open(built[1]) as sdist:
        top = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "docs", "tests", "pyproject.toml"} <= top


def test_the_list_names_all_that_a_wheel_brings_along(built: tuple[Path, Path, Path]) -> None:
    """The list has packages with versions and the page's libraries, and no path of a machine."""
    text = built[2].read_text()
    listed = json.loads(text)
    found = {one["name"].lower().replace("_", "-"): one["version"] for one in listed["components"]}
    needed = [Requirement(one) for one in requires("llamadoze") or ()]
    names = {one.name.lower() for one in needed if one.marker is None or one.marker.evaluate()}
    assert names | {"preact", "uplot", "dompurify"} <= found.keys()
    assert listed["metadata"]["component"]["name"] == "llamadoze"
    assert "file:" not in text
    assert str(ROOT) not in text


def test_the_same_commit_gives_the_same_files(
    built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The files are equal byte for byte, so that anybody can rebuild a release."""
    again = build(tmp_path)
    assert [one.read_bytes() for one in again] == [one.read_bytes() for one in built]
