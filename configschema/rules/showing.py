"""What may be shown of the settings in effect: all but secrets, with the keys of the file.

Owns what is left out, and in which form the rest is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import yaml

from configschema.keys.commandline import Command
from configschema.keys.fields import (
    Section,
    fields_of,
    holds_secrets,
    inside,
    types_of,
    without_none,
)
from configschema.keys.schema import Config, Model
from configschema.text.problems import HIDDEN

_SECRET_ARGUMENT = re.compile(
    r"""((?:token|secret|password|passwd|api[-_]?key)["']?(?:\s{0,8}[=:]\s{0,8}|\s{1,8})["']?)"""
    r"""(?!\$\{)[^\s"',\]}#]{1,1000}""",
    re.IGNORECASE,
)
"""What follows a name that ends like a secret's: ``HF_TOKEN=...``, ``--api-key ...``."""
COMMANDS = {"cmd": "cmd", "cmdStop": "cmd_stop", "cmdSleep": "cmd_sleep", "cmdWake": "cmd_wake"}


def without_arguments(text: str) -> str:
    """Return a text without what looks like a secret, where no key of the file says that it is."""
    return _SECRET_ARGUMENT.sub(rf"\g<1>{HIDDEN}", text)


def texts_of(model: Model) -> dict[str, str]:
    """Return the texts of a model in which there may be what is secret elsewhere, by their keys."""
    commands = {key: getattr(model, name).text for key, name in COMMANDS.items()}
    texts = {**commands, "proxy": model.proxy, "env": "\n".join(model.env)}
    return {key: text for key, text in texts.items() if text or key in ("cmd", "proxy")}


def settings_of(config: Config, name: str) -> dict[str, Any]:
    """Return the settings of a model that say something, in the order of the schema.

    Args:
        config: whose.
        name: of the model.
    """
    model = config.models[name]
    found = _section(model)
    for key, text in model.shown.items():
        if key in found:
            found[key] = text.split("\n") if key == "env" else text
    return found


def as_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as a file would have it."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100)


def _section(section: attrs.AttrsInstance) -> dict[str, Any]:
    kinds = types_of(type(section))
    found: dict[str, Any] = {}
    for key, field in fields_of(type(section)).items():
        value = getattr(section, field.name)
        if value != _usual(field) and value not in ("", (), None):
            found[key] = _plain(value, without_none(kinds[key]))
    return found


def _usual(field: attrs.Attribute[Any]) -> object:
    made = getattr(field.default, "factory", None)
    return made() if made else field.default


def _plain(value: Any, kind: Any) -> Any:  # noqa: ANN401 -- whatever a key may hold
    if isinstance(value, Section):
        return _section(value)
    if isinstance(value, Command):
        return value.text
    if isinstance(value, Mapping):
        return {str(key): _plain(one, inside(kind)) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one, inside(kind)) for one in value]
    if kind is not None and holds_secrets(kind):
        return HIDDEN
    for plain in (bool, int, float):  # kinds of numbers have names of their own
        if isinstance(value, plain):
            return plain(value)
    return None if value is None else str(value)
