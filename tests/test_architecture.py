"""The direction of the imports, and what the wheel and the tree hold."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDARD = set(sys.stdlib_module_names)
MAY_IMPORT = {
    "configschema": {"configschema", "attrs", "cattrs", "yaml", "jmespath"},
    "supervisor": {
        *("supervisor", "configschema", "trio", "attrs", "structlog", "psutil"),
        "pynvml",
    },
    "proxy": {
        *("proxy", "supervisor", "configschema", "trio", "attrs", "structlog"),
        *("hypercorn", "quart", "quart_trio", "werkzeug", "httptools"),
        *("prometheus_client", "jmespath"),
        *("xllamacpp", "gguf", "numpy"),
    },
}
MODULES = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file: Path) -> None:
    """configschema knows nothing of processes, supervisor nothing of HTTP servers."""
    package = file.relative_to(ROOT).parts[0]
    assert imports(file) - STANDARD - MAY_IMPORT[package] == set()


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_module_says_what_it_owns(file: Path) -> None:
    """In a docstring; and none grows beyond what one can hold in mind."""
    assert ast.get_docstring(ast.parse(file.read_text()))
    assert len(file.read_text().splitlines()) <= 350


def test_only_the_demo_needs_the_demos_packages() -> None:
    """The daemon runs without llama.cpp and numpy."""
    for file in MODULES:
        if "demo" not in file.parts:
            assert not imports(file) & {"xllamacpp", "gguf", "numpy"}


def test_every_constraint_is_a_name_and_a_version() -> None:
    """No address of an index, no path of a machine."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equals, version = line.partition("==")
        assert name
        assert equals
        assert version[0].isdigit()
        assert "/" not in line


def test_every_dependency_is_constrained() -> None:
    """An install of today is the install of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    held = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    for requirement in wanted:
        name = requirement.partition(">")[0].partition("=")[0].lower().replace("_", "-")
        assert name in held
