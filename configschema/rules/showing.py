"""The settings in effect as anybody may see them: all but secrets, under the keys of the file.

Owns which values are left out, and how the others are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
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
from configschema.rules.hiding import looks_secret, without_arguments
from configschema.rules.unknown import secrets_in
from configschema.text.problems import HIDDEN, Place, Report

_MACRO = re.compile(r"\$\{([\w-]{1,64})\}")
COMMANDS = {"cmd": "cmd", "cmdStop": "cmd_stop", "cmdSleep": "cmd_sleep", "cmdWake": "cmd_wake"}


def texts_of(model: Model) -> dict[str, str]:
    """Return the texts of a model that may have secrets from elsewhere in them, by their keys."""
    commands = {key: getattr(model, name).text for key, name in COMMANDS.items()}
    texts = {**commands, "proxy": model.proxy, "env": "\n".join(model.env)}
    return {key: text for key, text in texts.items() if text or key in ("cmd", "proxy")}


def with_shown(config: Config, report: Report) -> Config:
    """Return the configuration, whose models know how they may be shown."""
    models = {
        name: attrs.evolve(
            model,
            shown={
                key: without_arguments(report.without_secrets(text))
                for key, text in texts_of(model).items()
            },
        )
        for name, model in config.models.items()
    }
    # The rest of a report is not kept, because it has the trees of the files.
    hide = attrs.evolve(report, find=_nowhere, names={}, files=()).without_secrets
    return attrs.evolve(config, models=models, hide=hide)


def _nowhere(*_: object) -> Place:
    return Place("", 1, 1)


def shown_texts(
    texts: Mapping[str, str], data: Mapping[str, Any], report: Report
) -> Mapping[str, str]:
    """Return the files without secrets. This is slow, and done only on demand."""
    written = {*secrets_in(data)}
    secrets = {*report.secrets, *written, *macros_of(written, data)}
    return {file: file_text(text, secrets, report.without_secrets) for file, text in texts.items()}


def settings_of(config: Config, name: str) -> dict[str, Any]:
    """Return the settings of a model that are not the default, in the order of the schema.

    Args:
        config: the model's configuration.
        name: the model's id.
    """
    model = config.models[name]
    found: dict[str, Any] = _clean(_section(model), config.hide)
    for key, text in model.shown.items():
        if key in found:
            found[key] = text.split("\n") if key == "env" else text
    return found


@attrs.frozen
class Difference:
    """A setting in which two configurations differ.

    Attributes:
        model: the model's id; empty for a setting of the whole file.
        key: the key in the file.
        old: the old value as it may be shown; None for the default.
        new: the new value, likewise.
    """

    model: str
    key: str
    old: Any
    new: Any


def differences(old: Config, new: Config) -> list[Difference]:
    """Return the settings that differ: first the file's own, then those of models in both.

    Secret values are stars on both sides.
    """
    keys = [key for key in _differing(old, new) if key != "models"]
    shown = [_clean(_section(one, keys), one.hide) for one in (old, new)]
    found = [Difference("", key, *(one.get(key) for one in shown)) for key in keys]
    for name in sorted(old.models.keys() & new.models.keys()):
        if keys := _differing(old.models[name], new.models[name]):
            shown = [settings_of(one, name) for one in (old, new)]
            found += [Difference(name, key, *(one.get(key) for one in shown)) for key in keys]
    return found


def _differing(old: attrs.AttrsInstance, new: attrs.AttrsInstance) -> list[str]:
    fields = fields_of(type(old)).items()
    return [key for key, field in fields if getattr(old, field.name) != getattr(new, field.name)]


def _clean(value: Any, hide: Callable[[str], str]) -> Any:  # noqa: ANN401 -- plain data
    if isinstance(value, dict):
        named = {key: _clean(one, hide) for key, one in value.items()}
        return {
            key: HIDDEN if isinstance(one, str) and looks_secret(key) else one
            for key, one in named.items()
        }
    if isinstance(value, list):
        return [_clean(one, hide) for one in value]
    return without_arguments(hide(value)) if isinstance(value, str) else value


def file_text(text: str, secrets: Collection[str], hide: Callable[[str], str]) -> str:
    """Return a file with stars for its secrets, however YAML spells them.

    Args:
        text: the file's text.
        secrets: the secrets in it.
        hide: removes known secrets from a text.
    """
    parts, end = [], 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.ScalarToken) and token.value in secrets:
            begin, stop = token.start_mark.index, token.end_mark.index
            parts += [text[end:begin], HIDDEN]
            end = begin + len(text[begin:stop].rstrip())  # a block ends at the next line's text
    return without_arguments(hide("".join([*parts, text[end:]])))


def macros_of(secrets: Iterable[str], data: Mapping[str, Any]) -> set[str]:
    """Return the values of macros that are part of secrets.

    Args:
        secrets: the secrets as the file has them.
        data: the file's data.
    """
    names = {name for text in secrets for name in _MACRO.findall(text)}
    sections = [data, *(one for one in _values(data.get("models")) if isinstance(one, dict))]
    tables = [one.get("macros") for one in sections]
    found = [
        table[name] for table in tables if isinstance(table, dict) for name in names & table.keys()
    ]
    return {str(value) for value in found}


def _values(table: object) -> Iterable[Any]:
    return table.values() if isinstance(table, dict) else ()


def as_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as YAML."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100)


def _section(section: attrs.AttrsInstance, keys: Collection[str] = ()) -> dict[str, Any]:
    kinds = types_of(type(section))
    found: dict[str, Any] = {}
    for key, field in fields_of(type(section)).items():
        if keys and key not in keys:
            continue
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
