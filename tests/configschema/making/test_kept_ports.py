"""Models keep the ports that they have, whatever else changes in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from configschema import load


def ports(tmp_path: Path, models: str, start: int = 5800, **kept: int) -> dict[str, int | None]:
    """Return the ports of models with one-letter names; `kept` holds the ports they have."""
    lines = "\n".join(f"  {name}: {{cmd: 'x ${{PORT}}'}}" for name in models)
    file = tmp_path / "config.yaml"
    file.write_text(f"startPort: {start}\nmodels:\n{lines}\n")
    config = load(file, ports=kept).config
    return {name: model.port for name, model in config.models.items()}


def test_a_new_model_takes_a_port_that_is_free(tmp_path: Path) -> None:
    """A free port is one that no other model has, not even a removed one that is still stopping."""
    assert ports(tmp_path, "abz", b=5800, z=5801) == {"a": 5802, "b": 5800, "z": 5801}
    assert ports(tmp_path, "ab", b=5801, gone=5800) == {"a": 5802, "b": 5801}


def test_what_a_removed_model_had_is_given_again(tmp_path: Path) -> None:
    """The port is free again as soon as it is no longer kept."""
    assert ports(tmp_path, "bc", b=5801) == {"b": 5801, "c": 5800}


@pytest.mark.parametrize("start", [7000, 5000])
def test_another_start_port_gives_other_ports(tmp_path: Path, start: int) -> None:
    """An operator who changes `startPort` wants the models to have ports from there on."""
    assert ports(tmp_path, "ab", start, a=5800, b=5801) == {"a": start, "b": start + 1}
