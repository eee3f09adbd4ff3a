"""The JSON Schema is up to date, agrees with the classes, and is useful to an editor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from configschema import parse
from configschema.keys.editorschema import json_schema

ROOT = Path(__file__).parents[3]
SCHEMA = json_schema()


STRICT = json_schema(strict=True)


def faults(data: object, schema: dict[str, Any] = SCHEMA) -> list[str]:
    """Return the paths at which data does not fit the schema."""
    checker = jsonschema.Draft202012Validator(schema)
    return sorted(".".join(map(str, error.path)) for error in checker.iter_errors(data))


def test_the_committed_schema_is_the_one_that_is_made() -> None:
    """If this test fails, run `make schema`."""
    assert json.loads((ROOT / "docs/config.schema.json").read_text()) == SCHEMA


def test_it_is_a_schema() -> None:
    """Both schemas are valid by their own draft's rules."""
    for schema in (SCHEMA, STRICT):
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_example_fits() -> None:
    """The example is the file that people begin with."""
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    assert faults(example) == faults(example, STRICT) == []


def descriptions(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}": described
        for name, section in {"": schema, **schema["$defs"]}.items()
        for key, described in section.get("properties", {}).items()
    }


def test_every_key_is_described() -> None:
    """An editor shows the description beside the key."""
    found = descriptions(SCHEMA)
    assert len(found) > 90
    assert [key for key, described in found.items() if not described.get("description")] == []


def test_defaults_are_those_of_the_classes() -> None:
    """Editors that complete keys fill in these defaults."""
    found = descriptions(SCHEMA)
    assert found[".startPort"]["default"] == 5800
    assert found["Group.swap"]["default"] is True
    assert found["Model.checkEndpoint"]["default"] == "/health"
    assert "default" not in found["Model.cmd"]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"startPort": 0}, "startPort"),
        ({"logToStdout": "all"}, "logToStdout"),
        ({"models": {"m": {"ttl": "soon"}}}, "models.m.ttl"),
        ({"models": {"m": {"unlisted": 1}}}, "models.m.unlisted"),
        ({"models": {"m": {"aliases": "x"}}}, "models.m.aliases"),
        ({"groups": {"g": {"members": [{}]}}}, "groups.g.members.0"),
        ({"models": {"m": {"cmd": "x", "cmdSleep": "y"}}}, "models.m"),
        ({"models": {"m": {"cmd": "x", "cmdWake": "y"}}}, "models.m"),
        ({"performance": {"every": "soon"}}, "performance"),
        ({"performance": {"every": "5"}}, "performance"),
        ({"performance": {"every": "5.1.s"}}, "performance"),
        ({"macros": {"a b": 1}}, "macros"),
        ({"macros": {"a": [1]}}, "macros.a"),
        (
            {"models": {"m": {"sleepEndpoints": [{"method": "DELETE"}]}}},
            "models.m.sleepEndpoints.0",
        ),
    ],
)
def test_what_the_daemon_refuses_of_one_key_does_not_fit(data: object, path: str) -> None:
    """An editor underlines the commonest slips while people type."""
    (found,) = faults(data)
    assert found.startswith(path)


def test_macros_may_stand_for_numbers() -> None:
    """An editor that underlines valid macros would be switched off."""
    every = {"macros": {"T": "6s"}, "performance": {"every": "${T}"}}
    assert faults(every) == []
    assert parse(yaml.safe_dump(every)).config.performance.every == "6s"
    model = {"cmd": "x", "ttl": "${T}", "unlisted": "${U}", "capabilities": {"context": "${C}"}}
    assert faults({"models": {"m": model}, "startPort": "${env.P}"}) == []


def test_keys_of_other_programs_do_not_disturb() -> None:
    """Real files have such keys; the daemon only warns about them."""
    assert faults({"x-anchors": {"a": 1}, "models": {"m": {"recommended_use": "x"}}}) == []


@pytest.mark.parametrize(
    "every", ["5s", "1m30s", "1.5h", "60000ms", "1h30m10s", "9.s", "+9s", "0", "9000000μs"]
)
def test_times_fit_as_the_daemon_reads_them(every: str) -> None:
    """The schema accepts times in Go's notation."""
    assert faults({"performance": {"every": every}}) == []
    config = parse(yaml.safe_dump({"models": {}, "performance": {"every": every}})).config
    assert config.performance.every == every


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"healthCheckTimeot": 1}, ""),
        ({"models": {"m": {"cmd": "x", "tll": 1}}}, "models.m"),
        ({"models": {"m": {"cmd": "x", "filters": {"strip": "x"}}}}, "models.m.filters"),
        ({"routing": {"router": {"usee": "group"}}}, "routing"),
    ],
)
def test_a_misspelt_key_fits_all_but_the_strict_schema(data: object, path: str) -> None:
    """The daemon warns about it; an editor with the strict schema underlines it."""
    assert faults(data) == []
    assert faults(data, STRICT) == [path]


def test_names_of_the_operators_own_fit_the_strict_schema() -> None:
    """Names of models, macros, groups and metadata, and keys that begin with x-, are free."""
    models = {"any name": {"cmd": "x", "metadata": {"a": {"b": 1}}, "macros": {"mine": 1}}}
    assert faults({"models": models, "macros": {"own": 1}, "x-own": {"a": 1}}, STRICT) == []


def test_each_schema_has_an_identity_of_its_own() -> None:
    """Editors tell the schemas apart by their identities."""
    assert SCHEMA["$id"] == "urn:llamadoze:configuration"
    assert STRICT["$id"] == "urn:llamadoze:configuration:strict"


def test_editors_are_told_what_is_expected() -> None:
    """The schema has messages in words where JSON types alone do not explain enough."""
    found = descriptions(SCHEMA)
    messages = [
        found[".cmdSleepTimeout"]["anyOf"][0]["errorMessage"],
        found["Model.unlisted"]["anyOf"][0]["errorMessage"],
        found["Performance.every"]["patternErrorMessage"],
    ]
    assert messages == [
        "expected whole seconds, at least 1, as a number without a unit",
        "expected true or false",
        "expected a time such as 5s or 1m30s",
    ]
