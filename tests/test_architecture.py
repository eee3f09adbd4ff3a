"""The architecture: the direction of imports, the size of wings and modules, the dependencies."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[1]
STANDARD = set(sys.stdlib_module_names)
MAY_IMPORT = {
    "configschema": {"configschema", "attrs", "cattrs", "yaml", "jmespath", "re2"},
    "supervisor": {
        *("supervisor", "configschema", "trio", "attrs", "structlog", "psutil"),
        "pynvml",
    },
    "proxy": {
        *("proxy", "supervisor", "configschema", "trio", "attrs", "structlog"),
        *("hypercorn", "quart", "quart_trio", "werkzeug", "httptools"),
        *("prometheus_client", "jmespath", "msgspec", "psutil", "re2"),
        *("xllamacpp", "gguf", "numpy", "click", "rich", "opentelemetry"),
    },
}
WINGS = {
    "configschema": "text keys rules making advice",
    "supervisor": (
        "states room processes clusters places sleep succession model scheduling upkeep playing"
    ),
    "proxy": (
        "http lifecycle naming forwarding history observing views daemon "
        "demo terminal beginning simulation command"
    ),
}
"""The wings of each package. A wing may import the wings to its left, and itself. The modules in
the package's own folder are the top, which no wing imports."""
MOST_MODULES = 14  # modules in a folder
MOST_LINES = 320  # lines in a module


@attrs.frozen
class Arrow:
    """An import of one of our modules by another, with its line."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{_file_of(self.importer)}:{self.line} imports {self.imported}"


def _file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def _name_of(file: Path, root: Path = ROOT) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    _name_of(file): file.read_text()
    for package in MAY_IMPORT
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imports(text: str) -> Iterator[tuple[str, int]]:
    """Yield the full name of each import of a module, and its line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def arrows(modules: Mapping[str, str]) -> list[Arrow]:
    """Return the imports among modules; the argument has their texts by name."""
    found = []
    for importer, text in modules.items():
        for name, line in imports(text):
            imported = name if name in modules else name.rpartition(".")[0]
            if imported in modules:
                found.append(Arrow(importer, imported, line))
    return found


def wing_of(module: str, modules: Mapping[str, str]) -> str:
    """Return the wing of a module, or nothing for the package's own folder."""
    _, _, rest = module.partition(".")
    wing, _, _ = rest.partition(".")
    is_wing = any(other.startswith(f"{module.partition('.')[0]}.{wing}.") for other in modules)
    return wing if is_wing else ""


def against_the_direction(modules: Mapping[str, str], wings: Mapping[str, str]) -> list[str]:
    """Return the imports that lead from a wing to one on its right, or to the top."""
    found = []
    for arrow in arrows(modules):
        package = arrow.importer.partition(".")[0]
        if package == arrow.imported.partition(".")[0]:
            order = [*wings[package].split(), ""]
            importer, imported = (wing_of(m, modules) for m in (arrow.importer, arrow.imported))
            if order.index(imported) > order.index(importer):
                found.append(str(arrow))
    return found


def circles(modules: Mapping[str, str]) -> list[list[str]]:
    """Return chains of imports that lead back to their beginning."""
    ways: dict[str, list[Arrow]] = {module: [] for module in modules}
    for arrow in arrows(modules):
        ways[arrow.importer].append(arrow)
    found: list[list[str]] = []
    done: set[str] = set()

    def follow(module: str, way: list[Arrow]) -> None:
        came_by = [arrow.importer for arrow in way]
        if module in came_by:
            found.append([str(arrow) for arrow in way[came_by.index(module) :]])
        elif module not in done:
            for arrow in ways[module]:
                follow(arrow.imported, [*way, arrow])
            done.add(module)

    for module in modules:
        follow(module, [])
    return found


def repeated_names(modules: Mapping[str, str]) -> list[list[str]]:
    """Return the files of each package that have the same name, including its wings."""
    named: dict[tuple[str, str], list[str]] = {}
    for module in modules:
        package, _, rest = module.partition(".")
        if rest and not module.endswith("__main__"):
            name = module.rpartition(".")[2]
            named.setdefault((package, name), []).append(_file_of(module))
    return [files for files in named.values() if len(files) > 1]


def test_no_import_goes_against_the_direction_of_the_wings() -> None:
    """To work in a wing, you need to know only the wings to its left."""
    assert against_the_direction(MODULES, WINGS) == []


def test_no_modules_import_each_other() -> None:
    """Longer circles and imports for types count, too: one module would know too much."""
    assert circles(MODULES) == []


def test_no_name_stands_twice_in_a_package() -> None:
    """In a package, a name means one thing."""
    assert repeated_names(MODULES) == []


def test_every_wing_has_its_place() -> None:
    """The order is that of `WINGS`, which `docs/development.md` shows."""
    for package, wings in WINGS.items():
        folders = {file.parent.name for file in (ROOT / package).glob("*/__init__.py")}
        assert folders == set(wings.split())
        text = (ROOT / "docs/development.md").read_text()
        assert package.ljust(15) + "  >  ".join(wings.split()) in text


FOR_TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.high import two"
PLANTED = {
    "p": "",
    "p.low": '"""."""',
    "p.low.one": "",
    "p.low.other": FOR_TYPES_ONLY,
    "p.high": "",
    "p.high.two": "import p.low.one\n\ndef f():\n    from p.low.other import x",
    "p.high.one": "from p import top",
    "p.top": "from p.high.two import f",
}
"""A package with every fault: an import to the right, one of the top, a circle, a repeated name."""


def test_an_arrow_against_the_direction_is_found_with_its_line() -> None:
    """Imports for types, within functions, and of the package's own folder count, too."""
    assert against_the_direction(PLANTED, {"p": "low high"}) == [
        "p/low/other.py:3 imports p.high.two",
        "p/high/one.py:1 imports p.top",
    ]


def test_a_circle_is_found_with_its_lines() -> None:
    """The error names every import of the circle, because removing any of them helps."""
    assert circles(PLANTED) == [
        ["p/low/other.py:3 imports p.high.two", "p/high/two.py:4 imports p.low.other"]
    ]


def test_a_repeated_name_is_found_with_its_files() -> None:
    """The two files may be in different wings."""
    assert repeated_names(PLANTED) == [["p/low/one.py", "p/high/one.py"]]


@pytest.mark.parametrize("module", MODULES)
def test_packages_import_one_way(module: str) -> None:
    """configschema does not know processes, and supervisor does not know HTTP servers."""
    allowed = MAY_IMPORT[module.partition(".")[0]] | STANDARD
    strangers = [
        f"{_file_of(module)}:{line} imports {name}"
        for name, line in imports(MODULES[module])
        if name.partition(".")[0] not in allowed
    ]
    assert strangers == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_owns(module: str) -> None:
    """The docstring says it, and no module has more than `MOST_LINES` lines."""
    assert ast.get_docstring(ast.parse(MODULES[module]))
    assert len(MODULES[module].splitlines()) <= MOST_LINES


def test_no_folder_has_more_modules_than_a_newcomer_takes_in() -> None:
    """A folder with more modules should be two folders."""
    folders = Counter(module.rpartition(".")[0] for module in MODULES)
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES} == {}


@pytest.mark.parametrize(
    "wing", [f"{package}.{wing}" for package, wings in WINGS.items() for wing in wings.split()]
)
def test_a_wing_says_what_it_owns_and_imports_nothing(wing: str) -> None:
    """Because of that, importing one module of a wing does not load its other modules."""
    assert 2 <= len((ast.get_docstring(ast.parse(MODULES[wing])) or "").splitlines()) <= 5
    assert list(imports(MODULES[wing])) == []


def test_only_the_demo_needs_the_demos_packages() -> None:
    """The daemon runs without llama.cpp and numpy."""
    for module, text in MODULES.items():
        if not module.startswith("proxy.demo"):
            tops = {name.partition(".")[0] for name, _ in imports(text)}
            assert not tops & {"xllamacpp", "gguf", "numpy"}


def test_every_constraint_is_a_name_and_a_version() -> None:
    """A constraint has no index address and no path of a machine."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equals, version = line.partition("==")
        assert name
        assert equals
        assert version[0].isdigit()
        assert "/" not in line


def test_every_dependency_is_constrained() -> None:
    """The constraints make an install equal to the one that the tests use."""
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
