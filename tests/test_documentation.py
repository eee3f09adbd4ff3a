"""What the documentation shows is what the program reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from configschema import load, parse
from configschema.advice.general import NOT_YET, NOT_YET_OF_MODELS
from configschema.keys import sections
from configschema.keys.commandline import Command
from configschema.keys.fields import fields_of, inside, is_section, types_of, without_none
from configschema.keys.schema import Config, Model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
TABLES: dict[str, type[attrs.AttrsInstance]] = {
    "## Global keys": Config,
    "## Keys of a model": Model,
    "### Requests for sleep and wake": sections.Endpoint,
    "### Verify": sections.Verify,
    "### Questions": sections.Check,
    "### Filters": sections.Filters,
    "### Timeouts": sections.Timeouts,
    "### Capabilities": sections.Capabilities,
    "### Compat": sections.Compat,
    "## Groups": sections.Group,
    "## Matrix": sections.Matrix,
    "## Routing": sections.Routing,
    "## Selectors": sections.Selector,
    "## Profiles": sections.Profile,
    "## Peers": sections.Peer,
    "## Hooks": sections.Hooks,
    "## Upstream": sections.UpstreamPaths,
    "## Store": sections.Store,
    "## Ui": sections.Ui,
    "## Performance": sections.Performance,
}
NESTED = ("## Routing", "## Selectors", "## Hooks", "## Ui")  # tables with dotted keys


def all_keys(cls: type[attrs.AttrsInstance] = Config) -> Iterator[str]:
    """Yield every key of the file."""
    for key, kind in types_of(cls).items():
        yield key
        inner = inside(without_none(kind)) or without_none(kind)
        if is_section(inner):
            yield from all_keys(inner)


def rows(cls: type[attrs.AttrsInstance], nested: bool, prefix: str = "") -> dict[str, str]:
    """Return the keys that a section's table has, each with its default."""
    found: dict[str, str] = {}
    for key, field in fields_of(cls).items():
        kind = without_none(types_of(cls)[key])
        own = is_section(kind) and kind is not sections.Matrix
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
    """It is the first thing people copy."""
    loaded = load(ROOT / "config.example.yaml", environ={})
    known = {*NOT_YET.values(), *NOT_YET_OF_MODELS.values()}
    assert {warning.message for warning in loaded.warnings} <= known
    assert loaded.config.models["large-chat"].cmd_sleep_timeout == 120


def test_every_key_is_in_the_example() -> None:
    """With its default, which is said or shown."""
    text = (ROOT / "config.example.yaml").read_text()
    for key in all_keys():
        assert re.search(rf"(^|[\s{{]){re.escape(key)}:", text, re.MULTILINE), key


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_in_its_table_with_its_default(heading: str) -> None:
    """And no other."""
    section = CONFIGURATION.partition(f"\n{heading}\n")[2]
    table = re.search(r"^\| key \|.*?(?=\n\n)", section, re.MULTILINE | re.DOTALL)
    assert table
    found = re.findall(r"^\| `([^`]+)`(?: †)? \|.*? \| (.*?(?<!\\)) \| ", table[0], re.MULTILINE)
    assert dict(found) == rows(TABLES[heading], heading in NESTED)


def test_keys_without_effect_are_marked() -> None:
    """With a dagger, in the tables of the top and of models."""
    for heading, keys in (("Global keys", NOT_YET), ("Keys of a model", NOT_YET_OF_MODELS)):
        table = CONFIGURATION.partition(f"\n## {heading}\n")[2].partition("\n\n## ")[0]
        table = table.partition("\n### ")[0]
        assert set(re.findall(r"^\| `(\w+)` †", table, re.MULTILINE)) == set(keys)


def test_the_whole_configurations_in_the_pages_are_good() -> None:
    """Those that begin with models."""
    shown_here = [
        block
        for page in PAGES
        for block in re.findall(r"```yaml\n(models:.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(shown_here) >= 5
    for block in shown_here:
        assert [w for w in parse(block).warnings if "not in effect" not in w.message] == []


def test_the_commands_for_vllm_are_split_as_meant() -> None:
    """The steps of level 2 are one argument of a shell."""
    blocks = re.findall(r"```yaml\n(cmdSleep.*?)```", CONFIGURATION, re.DOTALL)
    (block,) = [block for block in blocks if "level=2" in block]
    indented = "".join(f"    {line}\n" for line in block.splitlines())
    model = parse("models:\n  m:\n    cmd: x ${PORT}\n" + indented).config.models["m"]
    assert model.cmd_wake.argv[:2] == ("sh", "-ec")
    assert len(model.cmd_wake.argv) == 3
    assert '-d "{\\"method\\": \\"reload_weights\\"}"' in model.cmd_wake.argv[2]


def anchor_of(heading: str) -> str:
    """Return how GitHub calls it in a link."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_links_between_pages_lead_somewhere() -> None:
    """To files that are there, and to headings that are in them."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)]+)?\)", page.read_text()):
            if target.startswith("http"):
                continue
            file = page.parent / target if target else page
            assert file.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                assert anchor[1:] in [anchor_of(name) for name in headings]
