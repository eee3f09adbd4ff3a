"""The documentation agrees with what the program reads and offers."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from configschema import load, parse
from configschema.advice.general import NOT_YET, NOT_YET_OF_MODELS
from configschema.keys import clients, clusters, sections, sharing
from configschema.keys.commandline import Command
from configschema.keys.fields import fields_of, inside, is_section, types_of, without_none
from configschema.keys.presets import PRESETS
from configschema.keys.schema import Config, Model
from proxy.command.cli import llamadoze
from proxy.daemon.application import Application
from proxy.forwarding.inflight import InFlight
from proxy.forwarding.modelcalls import CONTACT
from proxy.lifecycle.reloading import Reloader
from proxy.naming.routes import ASKED, POSTED, PROBES
from proxy.observing.counters import Metrics
from proxy.observing.logbook import LogBook
from proxy.observing.prometheus import exposed
from proxy.views.composition import quart_application
from supervisor import open_supervisor
from tests import logevents

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text()
TABLES: dict[str, type[attrs.AttrsInstance]] = {
    "## Global keys": Config,
    "## Keys of a model": Model,
    "### Requests for sleep and wake": sections.Endpoint,
    "### Memory": sharing.Memory,
    "### In": clusters.Where,
    "## Clusters": clusters.Cluster,
    "## Allocations": clusters.Allocation,
    "### Verify": sections.Verify,
    "### Questions": sections.Check,
    "### Filters": sections.Filters,
    "### Timeouts": sections.Timeouts,
    "### Capabilities": sections.Capabilities,
    "### Compat": sections.Compat,
    "### Api keys": clients.ApiKey,
    "## Security": clients.Security,
    "### Cors": clients.Cors,
    "## Groups": sharing.Group,
    "## Matrix": sharing.Matrix,
    "## Routing": sharing.Routing,
    "## Selectors": sections.Selector,
    "## Profiles": sections.Profile,
    "## Peers": sections.Peer,
    "## Hooks": sections.Hooks,
    "## Upstream": sections.UpstreamPaths,
    "## Store": sections.Store,
    "## Ui": sections.Ui,
    "## Performance": sections.Performance,
}
HTTP = (ROOT / "docs/reference/http.md").read_text()
SLEEP = (ROOT / "docs/explanation/sleep.md").read_text()
DEVELOPMENT = (ROOT / "docs/development.md").read_text()
NESTED = ("## Routing", "## Selectors", "## Hooks", "## Ui")  # tables with dotted keys


def all_keys(cls: type[attrs.AttrsInstance] = Config) -> Iterator[str]:
    """Yield every key of the configuration file."""
    for key, kind in types_of(cls).items():
        yield key
        inner = inside(without_none(kind)) or without_none(kind)
        if is_section(inner):
            yield from all_keys(inner)


def rows(cls: type[attrs.AttrsInstance], nested: bool, prefix: str = "") -> dict[str, str]:
    """Return the keys that a section's table must have, each with its default."""
    found: dict[str, str] = {}
    for key, field in fields_of(cls).items():
        kind = without_none(types_of(cls)[key])
        own = is_section(kind) and kind is not sharing.Matrix
        if nested and own:
            found |= rows(kind, nested, f"{prefix}{key}.")
        else:
            found[prefix + key] = shown(field.default)
    return found


def shown(default: Any) -> str:
    if isinstance(default, attrs.Factory) or default in ((), "", None):  # type: ignore[arg-type]
        return "none"
    if isinstance(default, tuple):
        return ", ".join(f"`{one}`" for one in default).replace("|", "\\|")
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f"`{default}`"
    if isinstance(default, int):
        return str(default)
    return "none" if isinstance(default, Command) else "see there"


def test_the_example_is_good_and_only_warns_of_what_has_no_effect_yet() -> None:
    """The example is the first file that people copy."""
    loaded = load(ROOT / "config.example.yaml", environ={})
    known = {*NOT_YET.values(), *NOT_YET_OF_MODELS.values()}
    assert {warning.message for warning in loaded.warnings} <= known
    assert loaded.config.models["large-chat"].cmd_sleep_timeout == 120


def test_every_key_is_in_the_example() -> None:
    """Readers copy keys from there."""
    text = (ROOT / "config.example.yaml").read_text()
    for key in all_keys():
        assert re.search(rf"(^|[\s{{]){re.escape(key)}:", text, re.MULTILINE), key


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_in_its_table_with_its_default(heading: str) -> None:
    """The table has no other keys."""
    section = CONFIGURATION.partition(f"\n{heading}\n")[2]
    table = re.search(r"^\| key \|.*?(?=\n\n)", section, re.MULTILINE | re.DOTALL)
    assert table
    found = re.findall(r"^\| `([^`]+)`(?: †)? \|.*? \| (.*?(?<!\\)) \| ", table[0], re.MULTILINE)
    assert dict(found) == rows(TABLES[heading], heading in NESTED)


def test_keys_without_effect_are_marked() -> None:
    """A dagger marks them in the tables of global keys and of models."""
    for heading, keys in (("Global keys", NOT_YET), ("Keys of a model", NOT_YET_OF_MODELS)):
        table = CONFIGURATION.partition(f"\n## {heading}\n")[2].partition("\n\n## ")[0]
        table = table.partition("\n### ")[0]
        assert set(re.findall(r"^\| `(\w+)` †", table, re.MULTILINE)) == set(keys)


def test_the_whole_configurations_in_the_pages_are_good() -> None:
    """These are the YAML blocks that begin with `models:`."""
    shown_here = [
        block
        for page in PAGES
        for block in re.findall(r"```yaml\n(models:.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(shown_here) >= 5
    for block in shown_here:
        assert [w for w in parse(block).warnings if "not in effect" not in w.message] == []


def test_the_commands_for_vllm_are_split_as_meant() -> None:
    """The steps of level 2 must form one argument of a shell."""
    blocks = re.findall(r"```yaml\n(cmdSleep.*?)```", CONFIGURATION, re.DOTALL)
    (block,) = [block for block in blocks if "level=2" in block]
    indented = "".join(f"    {line}\n" for line in block.splitlines())
    model = parse("models:\n  m:\n    cmd: x ${PORT}\n" + indented).config.models["m"]
    assert model.cmd_wake.argv[:2] == ("sh", "-ec")
    assert len(model.cmd_wake.argv) == 3
    assert '-d "{\\"method\\": \\"reload_weights\\"}"' in model.cmd_wake.argv[2]


def first_cells(text: str) -> list[str]:
    """Return the first cell of every row of every table."""
    return re.findall(r"^\| (.+?) \|", text, re.MULTILINE)


def documented_routes() -> set[tuple[str, str]]:
    """Return method and path of each route in the tables; a method applies up to the next one."""
    found = set()
    for cell in first_cells(HTTP.partition("\n## Keys\n")[0]):
        method = ""
        for words in re.findall(r"`([^`]+)`", cell):
            *given, path = words.split()
            method = given[0] if given else method
            if method:  # a path without a method allows any
                found.add((method, re.sub(r"[A-Z]+", "*", path)))
    return found


async def test_every_route_is_in_its_table() -> None:
    """The tables have no other routes than those that are forwarded and the daemon's own."""
    forwarded = {("POST", path) for path in POSTED} | {("GET", path) for path in (*ASKED, *PROBES)}
    async with open_supervisor(parse("models: {}").config, CONTACT) as supervisor:
        reloader = Reloader(None, supervisor)
        of = Application.of(supervisor, reloader, Metrics(), LogBook(), trio.Event())
        application = quart_application(of._views._subjects)
    own = {
        (method, re.sub(r"<[^>]+>", "*", rule.rule))
        for rule in application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented_routes() == forwarded | own


async def test_every_metric_is_in_its_table() -> None:
    """The table has no other metrics of llamadoze."""
    async with open_supervisor(parse("models: {}").config, CONTACT) as supervisor:
        text = exposed(Metrics(), Reloader(None, supervisor), InFlight()).decode()
    told = set(re.findall(r"^# TYPE (llamadoze_\w+)", text, re.MULTILINE))
    cells = first_cells((ROOT / "docs/reference/metrics.md").read_text())
    assert {name for cell in cells for name in re.findall(r"`(llamadoze_\w+)`", cell)} == told


@pytest.mark.parametrize(
    "page", ["docs/explanation/sleep.md", "docs/reference/configuration.md", "config.example.yaml"]
)
def test_every_preset_is_in_its_pages(page: str) -> None:
    """The preset must be a whole word, so that `vllm` is not found in `vllm-level2`."""
    text = (ROOT / page).read_text()
    for preset in PRESETS:
        assert re.search(rf"(?<![\w.-]){re.escape(preset)}(?![\w-])", text), preset


def test_every_preset_has_its_rows() -> None:
    """One row says what a preset does; one has its needs, its verification and its limits."""
    cells = first_cells(SLEEP.partition("\n## Presets\n")[2].partition("\n## ")[0])
    assert [cell for cell in cells if cell.strip("`") in PRESETS] == [f"`{p}`" for p in PRESETS] * 2


@pytest.mark.parametrize("package", ["configschema", "supervisor", "proxy"])
def test_where_things_are_names_every_module(package: str) -> None:
    """The table names no module that does not exist."""
    table = DEVELOPMENT.partition(f"| to change in `{package}` |")[2].partition("\n\n")[0]
    modules = {str(file.relative_to(ROOT / package)) for file in (ROOT / package).rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    assert named == {module for module in modules if not module.endswith("__init__.py")}


def test_the_pages_name_no_module_that_is_gone() -> None:
    """This includes every path to llamadoze's code in any page."""
    for page in PAGES:
        for path in re.findall(
            r"`((?:configschema|supervisor|proxy|tests)/[\w/.]*)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_no_file_names_a_page_that_is_gone() -> None:
    """Units, examples and the source, too."""
    for name in ("docs", "configschema", "supervisor", "proxy", "config.example.yaml", "Makefile"):
        place = ROOT / name
        for file in [place] if place.is_file() else place.rglob("*.*"):
            text = file.read_text(errors="replace") if file.is_file() else ""
            for path in re.findall(r"(?<![\w/.-])docs/[\w/-]+\.md", text):
                assert (ROOT / path).exists(), f"{file}: {path}"


def anchor_of(heading: str) -> str:
    """Return a heading's anchor in links, by GitHub's rule."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_links_between_pages_lead_somewhere() -> None:
    """Each link leads to an existing file, and each anchor to a heading in that file."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)]+)?\)", page.read_text()):
            if target.startswith(("http:", "https:")):
                continue
            file = page.parent / target if target else page
            assert file.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                assert anchor[1:] in [anchor_of(name) for name in headings]


def test_the_table_of_the_log_has_every_event() -> None:
    """The events come from the source; ``make log-page`` writes the table anew."""
    page = logevents.PAGE.read_text()
    assert logevents.written(page) == page


def test_every_field_of_the_log_is_explained() -> None:
    """The table explains no other fields."""
    page = logevents.PAGE.read_text().partition("## Fields")[2].partition("## Events")[0]
    explained = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    written = {field for line in logevents.lines() for field in line.fields}
    of_all = {"exception", "logger", "dropped", "line"}
    assert explained == sorted(written | of_all)


def test_every_command_is_in_the_documentation() -> None:
    """The page lists no other commands."""
    page = (
        (ROOT / "docs/reference/command-line.md").read_text().partition("## Which configuration")[0]
    )
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(llamadoze.commands)


def test_every_page_is_in_the_sites_navigation() -> None:
    """A page that is missing there is found only by search."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(site["nav"])))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}
