"""What the documentation shows is what the program reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configschema import load, parse
from configschema.fields import fields_of
from configschema.schema import Config, Model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_example_is_good_and_warns_of_nothing() -> None:
    """It is the first thing people copy."""
    loaded = load(ROOT / "config.example.yaml")
    assert loaded.warnings == ()
    assert loaded.config.models["large-chat"].cmd_sleep_timeout == 120


@pytest.mark.parametrize("page", ["config.example.yaml", "docs/configuration.md"])
def test_every_key_is_shown(page: str) -> None:
    """In the example and in the reference."""
    text = (ROOT / page).read_text()
    for key in (*fields_of(Config), *fields_of(Model)):
        assert re.search(rf"(^\s*(# )?{key}:|`{key}`)", text, re.MULTILINE), key


def test_the_whole_configurations_in_the_pages_are_good() -> None:
    """Those that begin with models."""
    shown = [
        block
        for page in PAGES
        for block in re.findall(r"```yaml\n(models:.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(shown) >= 2
    for block in shown:
        assert parse(block).warnings == ()


def test_the_commands_for_vllm_are_split_as_meant() -> None:
    """The steps of level 2 are one argument of a shell."""
    text = (ROOT / "docs/configuration.md").read_text()
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "level=2" in b]
    indented = "".join(f"    {line}\n" for line in block.splitlines())
    model = parse("models:\n  m:\n    cmd: x ${PORT}\n" + indented).config.models["m"]
    assert model.cmd_wake.argv[:2] == ("sh", "-ec")
    assert len(model.cmd_wake.argv) == 3
    assert '-d "{\\"method\\": \\"reload_weights\\"}"' in model.cmd_wake.argv[2]


def test_links_between_pages_lead_somewhere() -> None:
    """Files that are there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), target
