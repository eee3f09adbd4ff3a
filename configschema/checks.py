"""Rules across keys, for a configuration whose every key is right by itself.

Owns what must fit together: sleep with wake, names with names, an address that can be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from configschema.problems import Fault
from configschema.schema import Config, Model

LOG_LEVELS = ("debug", "info", "warn", "error")


def check(config: Config, written: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield each rule that is broken; `written` holds each model's keys as they were read."""
    for name, model in config.models.items():
        for key, message in (*_sleep(written[name]), *_server(model), *_environment(model)):
            yield Fault(("models", name, key), message)
    yield from _names(config)


def advise(config: Config, written: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is allowed but hardly meant; `written` is as in `check`."""
    if config.log_level.lower() not in LOG_LEVELS:
        yield Fault(("logLevel",), f"'{config.log_level}' is none of {', '.join(LOG_LEVELS)}")
    for name, model in config.models.items():
        if not written[name].get("cmd"):
            yield Fault(("models", name, "cmd"), "there is no cmd: the model cannot be started")
        for alias in model.aliases:
            if alias in config.models and alias != name:
                message = f"alias '{alias}' is also a model's id, which wins"
                yield Fault(("models", name, "aliases"), message)


def _sleep(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one, other in (("cmdSleep", "cmdWake"), ("cmdWake", "cmdSleep")):
        if keys.get(one) and not keys.get(other):
            yield one, f"{other} is required where {one} is given"


def _server(model: Model) -> Iterator[tuple[str, str]]:
    yield from _address(model)
    if not model.check_endpoint.isprintable() or " " in model.check_endpoint:
        yield "checkEndpoint", f"expected a path, found {model.check_endpoint!r}"


def _address(model: Model) -> Iterator[tuple[str, str]]:
    if "${" in model.proxy:  # it lacks a value that has a fault of its own
        return
    try:
        url = urlsplit(model.proxy)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        (url.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable:
        yield "proxy", f"expected an address such as http://127.0.0.1:8000, found '{model.proxy}'"


def _environment(model: Model) -> Iterator[tuple[str, str]]:
    for entry in model.env:
        if "=" not in entry.lstrip("=") or "\0" in entry:
            yield "env", f"expected NAME=value, found {entry!r}"


def _names(config: Config) -> Iterator[Fault]:
    owners: dict[str, str] = {}
    for name, model in config.models.items():
        for alias in model.aliases:
            if alias in owners:
                message = f"alias '{alias}' is already an alias of '{owners[alias]}'"
                yield Fault(("models", name, "aliases"), message)
            owners.setdefault(alias, name)
