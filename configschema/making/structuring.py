"""Plain data to frozen classes: the one cattrs converter, and its errors as faults with paths.

Owns lists, names and sections, which hold other values, and what follows for a model from its keys
together: how it sleeps. What each single value accepts is in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from configschema.keys.clients import ApiKey
from configschema.keys.fields import MacroValue, fields_of, is_section, key_of
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
    Profile: "a list of models was the form of older files: write pins, each a name and its model",
}
SHORT_FORMS: dict[type, str] = {ApiKey: "key"}
"""Sections that may be written as the value of one of their keys."""
_Section = TypeVar("_Section", Config, Model)


def structure(data: Mapping[str, Any], ports: Mapping[str, int]) -> tuple[Config, list[Fault]]:
    """Build the configuration; a key with a fault has its default, so that checks can go on."""
    faults: list[Fault] = []
    built = {
        name: _model(name, body, ports.get(name), faults) for name, body in data["models"].items()
    }
    whole = {key: value for key, value in data.items() if key != "models"}
    return attrs.evolve(_build(Config, whole, (), faults), models=built), faults


def _model(name: str, body: Mapping[str, Any], port: int | None, faults: list[Fault]) -> Model:
    built = attrs.evolve(_build(Model, body, ("models", name), faults), id=name, port=port)
    if built.sleep and PRESETS[built.sleep].check_endpoint and not body.get("checkEndpoint"):
        built = attrs.evolve(built, check_endpoint=PRESETS[built.sleep].check_endpoint)
    return attrs.evolve(built, recipe=_recipe(built))


def _recipe(model: Model) -> Recipe:
    """Return how a model sleeps, and what proves it, in whichever words it is written."""
    steps = _steps(model)
    if not steps:
        return NO_RECIPE
    proven = verified(steps, model.proxy, model.verify.asleep, model.verify.awake)
    return with_headers(proven, model.proxy, model.control_headers)


def _steps(model: Model) -> Recipe:
    if model.cmd_sleep and model.cmd_wake:
        return from_commands(model.cmd_sleep, model.cmd_wake)
    if model.sleep:
        server = Server(model.proxy, model.use_model_name or model.id)
        return PRESETS[model.sleep].build(server)
    if model.sleep_mode == "enable":
        return from_endpoints(model.proxy, model.sleep_endpoints, model.wake_endpoints)
    return NO_RECIPE


def _build(
    cls: type[_Section], data: Mapping[str, Any], path: Path, faults: list[Fault]
) -> _Section:
    try:
        return _converter.structure(data, cls)
    except ClassValidationError as error:
        found = list(_faults(error, path))
    faults += found
    for fault in found:
        data = _without(data, fault.path[len(path) :])
    return _converter.structure(data, cls)


def _without(data: Any, path: Path) -> Any:  # noqa: ANN401 -- raw YAML
    """Drop the part at a path, or the whole list that the path leads into."""
    head, *rest = path
    value = data.get(head)
    if isinstance(value, dict) and rest and rest[0] in value:
        return {**data, head: _without(value, tuple(rest))}
    return {key: item for key, item in data.items() if key != head}


def _faults(error: BaseException, path: Path) -> Iterator[Fault]:
    """Walk cattrs' tree of errors; the notes on the way hold the path."""
    if isinstance(error, WrongValue):
        yield Fault(path, error.message, error.values)
    elif isinstance(error, (ClassValidationError, IterableValidationError)):
        for inner in error.exceptions:
            yield from _faults(inner, (*path, *_step(inner, error)))
    else:  # no error of the file
        raise error


def _step(inner: BaseException, outer: BaseException) -> Path:
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, IterableValidationNote):
            return (note.index,)
        if isinstance(note, AttributeValidationNote) and isinstance(outer, ClassValidationError):
            return (_keys_by_name(outer.cl)[note.name],)
    return ()


def _keys_by_name(cls: type) -> dict[str, str]:
    return {a.name: key_of(a) for a in attrs.fields(cls)}


# Lists, names and sections: what holds other values.


def _list(value: Any, kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- cattrs' hook signature
    item = get_args(kind)[0]
    is_wanted = (lambda _: True) if item in SHORT_FORMS else (lambda found: found is not None)
    if not isinstance(value, list):
        way = "write each as '- NAME=value'" if isinstance(value, dict) else "put it in [ ]"
        raise WrongValue(f"expected a list, found {{}}; {way}", value)
    return tuple(_each(item, enumerate(value), is_wanted))


def _names(value: Any, kind: Any) -> dict[str, Any]:  # noqa: ANN401 -- cattrs' hook signature
    item = get_args(kind)[1]
    if not isinstance(value, dict):
        raise WrongValue("expected names and values, found {}", value)
    if item in (Any, MacroValue):
        return dict(value)
    return dict(zip(value, _each(item, value.items(), lambda _: True), strict=True))


def _each(kind: Any, items: Any, wanted: Callable[[Any], bool]) -> list[Any]:  # noqa: ANN401 -- raw YAML
    """Structure each item, and say of all that are wrong which they are."""
    built, errors = [], []
    for step, item in items:
        try:
            if wanted(item):
                built.append(_converter.structure(item, kind))
        except (WrongValue, ClassValidationError, IterableValidationError) as error:
            error.add_note(IterableValidationNote("wrong", step, kind))
            errors.append(error)
    if errors:
        raise IterableValidationError("wrong", errors, kind)
    return built


def _section(cls: type[attrs.AttrsInstance]) -> Callable[[Any, Any], Any]:
    renames = {a.name: override(rename=key_of(a)) for a in attrs.fields(cls)}
    renames |= {a.name: override(omit=True) for a in attrs.fields(cls) if "inner" in a.metadata}
    # cattrs types the overrides together with its own flags, so a mapping of them fits neither.
    build = make_dict_structure_fn(cls, _converter, **renames)  # type: ignore[arg-type]

    def hook(value: Any, kind: Any) -> Any:  # noqa: ANN401 -- cattrs' hook signature
        if cls in SHORT_FORMS and not isinstance(value, (dict, list)):
            value = {SHORT_FORMS[cls]: value}
        if value is None:
            value = {}
        if not isinstance(value, dict):
            older = f"; {OLDER_FORMS[cls]}" if cls in OLDER_FORMS else ""
            raise WrongValue(f"expected {_settings(cls)}, found {{}}{older}", value)
        # A key without a value has its default.
        return build({key: item for key, item in value.items() if item is not None}, kind)

    return hook


def _settings(cls: type[attrs.AttrsInstance]) -> str:
    names = list(fields_of(cls))
    return "settings such as " + ", ".join(names[:3])


_converter = Converter()
for _kind, _hook in KINDS.items():
    _converter.register_structure_hook(_kind, _hook)
_converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
for _form, _of_form in {Literal: word, tuple: _list, Mapping: _names}.items():
    _converter.register_structure_hook_func(
        lambda kind, form=_form: get_origin(kind) is form,  # type: ignore[misc]
        _of_form,
    )
_converter.register_structure_hook_factory(is_section, _section)
