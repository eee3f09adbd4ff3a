"""From plain data to frozen classes: the one cattrs converter, and its errors as faults.

Owns lists, names and sections, which have other values in them, and what follows from a model's
keys together: how it sleeps. `kinds` says what each single value accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_origin

import attrs
from cattrs import BaseConverter, IterableValidationError, IterableValidationNote

from configschema.keys.clients import ApiKey
from configschema.keys.clusters import Where
from configschema.keys.fields import (
    MacroValue,
    Section,
    fields_of,
    inside,
    is_section,
    types_of,
)
from configschema.keys.presets import PRESETS, Server
from configschema.keys.recipe import (
    NO_RECIPE,
    Recipe,
    from_commands,
    from_endpoints,
    verified,
    with_headers,
)
from configschema.keys.schema import Config, Model
from configschema.keys.sections import Profile
from configschema.making.kinds import KINDS, WrongValue, word
from configschema.text.problems import Fault, Path

OLDER_FORMS: dict[type, str] = {
    Profile: "lists of models are an older form: write pins, each a name and its model",
}
SHORT_FORMS: dict[type, str] = {ApiKey: "key", Where: "allocation"}
"""Sections that may be written as the value of one of their keys."""
_Section = TypeVar("_Section", bound=Section)
_Part = tuple[str | int, Any, Any]
"""A part of a value: its key or index, the part itself, its kind."""


def structure(data: Mapping[str, Any], ports: Mapping[str, int]) -> tuple[Config, list[Fault]]:
    """Build the configuration. A key with a fault gets its default, so that checks can go on."""
    faults: list[Fault] = []
    built = {
        name: _model(name, body, ports.get(name), faults)
        for name, body in _without_place(data).items()
    }
    whole = {key: value for key, value in data.items() if key != "models"}
    return attrs.evolve(_build(Config, whole, (), faults), models=built), faults


def _without_place(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the models. Without clusters, ``in`` is dropped: other files may have such a key."""
    models: Mapping[str, Any] = data["models"]
    if data.get("clusters"):
        return models
    return {
        name: {key: value for key, value in body.items() if key != "in"}
        for name, body in models.items()
    }


def _model(name: str, body: Mapping[str, Any], port: int | None, faults: list[Fault]) -> Model:
    built = attrs.evolve(_build(Model, body, ("models", name), faults), id=name, port=port)
    if built.sleep and PRESETS[built.sleep].check_endpoint and not body.get("checkEndpoint"):
        built = attrs.evolve(built, check_endpoint=PRESETS[built.sleep].check_endpoint)
    return attrs.evolve(built, recipe=_recipe(built))


def _recipe(model: Model) -> Recipe:
    """Return how a model sleeps and what proves it, whichever keys say so."""
    steps = _steps(model)
    if not steps:
        return NO_RECIPE
    proven = verified(steps, model.proxy, model.verify.asleep, model.verify.awake)
    return with_headers(proven, model.proxy, model.control_headers)


def _steps(model: Model) -> Recipe:
    if model.cmd_sleep and model.cmd_wake:
        return from_commands(model.cmd_sleep, model.cmd_wake)
    if model.sleep:
        name = model.use_model_name or model.id
        server = Server(model.proxy, name, model.cmd.argv)
        return PRESETS[model.sleep].build(server)
    if model.sleep_mode == "enable":
        return from_endpoints(model.proxy, model.sleep_endpoints, model.wake_endpoints)
    return NO_RECIPE


def _build(
    cls: type[_Section], data: Mapping[str, Any], path: Path, faults: list[Fault]
) -> _Section:
    try:
        return _converter.structure(data, cls)
    except IterableValidationError as error:
        found = list(_faults(error, path))
    faults += found
    for fault in found:
        data = _without(data, fault.path[len(path) :])
    return _converter.structure(data, cls)


def _without(data: Any, path: Path) -> Any:  # noqa: ANN401 -- raw YAML
    """Remove the value at a path, or the whole list that the path leads into."""
    head, *rest = path
    value = data.get(head)
    if isinstance(value, dict) and rest:
        return {**data, head: _without(value, tuple(rest))}
    return {key: item for key, item in data.items() if key != head}


def _faults(error: Exception, path: Path) -> Iterator[Fault]:
    """Walk cattrs' tree of errors. The notes on the way have the path."""
    if isinstance(error, WrongValue):
        yield Fault(path, error.message, error.values)
    elif isinstance(error, IterableValidationError):
        for inner, note in error.group_exceptions()[0]:
            yield from _faults(inner, (*path, note.index))


# Lists, names and sections: values with other values in them.


def _list(value: Any, kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- cattrs' hook signature
    item = inside(kind)
    if not isinstance(value, list):
        way = "write each as '- NAME=value'" if isinstance(value, dict) else "put it in [ ]"
        raise WrongValue(f"expected a list, found {{}}; {way}", value)
    parts = (
        (index, one, item)
        for index, one in enumerate(value)
        if one is not None or item in SHORT_FORMS
    )
    return tuple(_each(parts, kind).values())


def _names(value: Any, kind: Any) -> dict[str, Any]:  # noqa: ANN401 -- cattrs' hook signature
    item = inside(kind)
    if not isinstance(value, dict):
        raise WrongValue("expected names and values, found {}", value)
    if item in (Any, MacroValue):
        return dict(value)
    return _each(((name, one, item) for name, one in value.items()), kind)


def _section(cls: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 -- a class of keys
    """Make the hook of a section, which structures its keys one by one.

    cattrs can generate a function for each class, which saves 2 us of a model's 13. But generating
    and compiling those of all sections takes 14 ms, at each start and each check.
    """
    names = {key: attribute.name for key, attribute in fields_of(cls).items()}
    kinds = types_of(cls)

    def hook(value: Any, _: Any) -> Any:  # noqa: ANN401 -- cattrs' hook signature
        if cls in SHORT_FORMS and not isinstance(value, (dict, list)):
            value = {SHORT_FORMS[cls]: value}
        if value is None:
            value = {}
        if not isinstance(value, dict):
            older = f"; {OLDER_FORMS[cls]}" if cls in OLDER_FORMS else ""
            raise WrongValue(f"expected {_settings(cls)}, found {{}}{older}", value)
        # A key without a value gets its default.
        parts = ((key, value[key], kinds[key]) for key in names if value.get(key) is not None)
        return cls(**{names[key]: built for key, built in _each(parts, cls).items()})

    return hook


def _each(parts: Iterable[_Part], kind: Any) -> dict[Any, Any]:  # noqa: ANN401 -- any annotation
    """Structure each part of a value, and report every part that is wrong."""
    built, errors = {}, []
    for step, value, kind_of_part in parts:
        try:
            built[step] = _converter.structure(value, kind_of_part)
        except (WrongValue, IterableValidationError) as error:
            error.add_note(IterableValidationNote(f"at {step}", step, kind_of_part))
            errors.append(error)
    if errors:
        raise IterableValidationError("wrong", errors, kind)
    return built


def _settings(cls: type[attrs.AttrsInstance]) -> str:
    names = list(fields_of(cls))
    return "settings such as " + ", ".join(names[:3])


def _one(accept: Callable[[object], object]) -> Callable[[Any, Any], Any]:
    return lambda value, _: accept(value)


def _is(form: object) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is form


_converter = BaseConverter()  # cattrs' other converter generates functions
for _kind, _accept in KINDS.items():
    _converter.register_structure_hook(_kind, _one(_accept))
for _form, _hook in {Literal: word, tuple: _list, Mapping: _names}.items():
    _converter.register_structure_hook_func(_is(_form), _hook)
_converter.register_structure_hook_factory(is_section, _section)
