"""Builds a release: a wheel, an sdist, and the list of what the wheel contains and needs (SBOM).

``make release`` puts them into ``dist``. The same commit gives the same files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT = Path(__file__).parents[2]
VENDORED = ROOT / "proxy" / "page" / "vendor" / "vendor.json"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
READER: Any = Bom  # its decorator adds a JSON reader that types do not know
NAME = f"{PROJECT['name']}-{PROJECT['version']}"


def build(folder: Path) -> tuple[Path, Path, Path]:
    """Build all three into a folder; return the wheel, the sdist and the list."""
    when = _commit_time()
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": f"{when:.0f}"},
    )
    wheel, sdist = folder / f"{NAME}-py3-none-any.whl", folder / f"{NAME}.tar.gz"
    listed = folder / f"{NAME}.cdx.json"
    listed.write_text(contents(wheel, when))
    return wheel, sdist, listed


def _commit_time() -> float:
    """Return the time of the current commit, in seconds since 1970."""
    commit = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return float(subprocess.run(commit, check=True, capture_output=True, text=True).stdout)


def contents(wheel: Path, when: float) -> str:
    """Return the list of what a wheel contains and needs, in CycloneDX's form.

    Args:
        wheel: the file, which is installed with the versions that the tests use.
        when: the wheel was made, in seconds since 1970.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "env", "bin", "python")
        installed = ["uv", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        _run("uv", "venv", "-q", "--python", sys.executable, str(python.parents[1]))
        _run(*installed, "--python", str(python), str(wheel))
        file = Path(folder, "bom.json")
        listing = ["cyclonedx-py", "environment", "--output-reproducible", "-o", str(file)]
        _run(*listing, "--pyproject", str(ROOT / "pyproject.toml"), str(python))
        found = READER.from_json(json.loads(file.read_text()))
    libraries = of_the_page()
    others = {
        one for one in found.components if one.name != PROJECT["name"]
    }  # llamadoze is the root
    found.components = others | libraries
    assert found.metadata.component
    found.register_dependency(found.metadata.component, libraries)
    found.serial_number = uuid5(NAMESPACE_OID, sha256(wheel.read_bytes()).hexdigest())
    found.metadata.timestamp = datetime.fromtimestamp(when, UTC)
    outputter = make_outputter(found, OutputFormat.JSON, SchemaVersion.V1_6)
    return str(outputter.output_as_string(indent=2))


def of_the_page() -> set[Component]:
    """Return the page's libraries, which are files in the wheel."""
    return {_library(**one) for one in json.loads(VENDORED.read_text())}


def _library(
    package: str, version: str, licence: str, sha256: dict[str, str], **_: object
) -> Component:
    scope, _slash, name = package.rpartition("/")
    purl = PackageURL("npm", scope or None, name, version)
    return Component(
        name=name,
        group=scope or None,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=[LicenseExpression(licence)],
        components=[_file(package, *one) for one in sha256.items()],
    )


def _file(package: str, name: str, content: str) -> Component:
    return Component(
        name=name,
        type=ComponentType.FILE,
        bom_ref=f"{package}/{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content)],
    )


def _run(*command: str) -> None:
    subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)


if __name__ == "__main__":
    for built in build(ROOT / "dist"):
        sys.stdout.write(f"{built.relative_to(ROOT)}\n")
