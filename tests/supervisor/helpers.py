"""A supervisor over fake programs, and the limits of its models."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import yaml

from configschema import Config, Limits, parse
from supervisor import Supervisor, open_supervisor
from supervisor.sleep.contact import Contact
from supervisor.sleep.readiness import Probe
from supervisor.sleep.steps import Caller
from supervisor.states.journal import SILENT, Journal
from tests.fakes import FakeCalls, FakeProbe


def supervise(
    text: str,
    probe: Probe | None = None,
    calls: Caller | None = None,
    limits: dict[str, Limits] | None = None,
    journal: Journal = SILENT,
) -> AbstractAsyncContextManager[Supervisor]:
    """Open a supervisor for a configuration given as text."""
    contact = Contact(probe=probe or FakeProbe(), call=calls or FakeCalls())
    return open_supervisor(parse(text).config, contact, limits, journal=journal)


def model(cmd: str, **keys: object) -> str:
    """Return one model's settings in YAML's flow form."""
    pairs = {"cmd": f"'{cmd}'", "proxy": "'http://model.test:9'", **keys}
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"


def two(a: str, b: str) -> str:
    return f"models: {{a: {a}, b: {b}}}"


def parse_models(**models: dict[str, object]) -> Config:
    """Return the configuration of these models; nothing answers at their proxy."""
    whole = {name: {"proxy": "http://model.test:9", **keys} for name, keys in models.items()}
    return parse(yaml.safe_dump({"models": whole})).config
