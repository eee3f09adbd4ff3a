"""Plain data to frozen classes: the one cattrs converter, and its errors as faults with paths.

Owns what each type accepts. Nothing is coerced: ``"60"`` is no number and ``1`` is not true.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs
from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from configschema.commandline import Command, split
from configschema.problems import Fault, Path
from configschema.schema import (
    Config,
    Count,
    MacroValue,
    Model,
    Port,
    Seconds,
    Timeout,
    Ttl,
    key_of,
    keys_of,
)

_KINDS = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}
_LONGEST_SHOWN = 60
HIGHEST = 1_000_000_000  # thirty years of seconds
_Section = TypeVar("_Section", Config, Model)


def structure(data: Mapping[str, Any], ports: Mapping[str, int]) -> tuple[Config, list[Fault]]:
    """Build the configuration; a key with a fault has its default, so that checks can go on."""
    faults: list[Fault] = []
    models = data.get("models") or {}
    if not isinstance(models, dict):
        faults.append(Fault(("models",), "expected model names, each with its settings"))
        models = {}
    built: dict[str, Model] = {}
    for name, body in models.items():
        path = ("models", name)
        if isinstance(body, dict):
            fixed = {"id": name, "port": ports.get(name)}
            built[name] = _build(Model, {**_given(body), **fixed}, path, faults)
        else:
            faults.append(Fault(path, "expected the model's settings"))
    whole = {key: value for key, value in _given(data).items() if key != "models"}
    return attrs.evolve(_build(Config, whole, (), faults), models=built), faults


def unknown_keys(data: Mapping[str, Any]) -> Iterator[Fault]:
    """Name each key that means nothing here, with the nearest one that does."""
    if data.get("apiKeys"):
        yield Fault(("apiKeys",), "keys are not checked yet: whoever reaches the port is served")
    yield from _unknown({key: data[key] for key in data if key != "apiKeys"}, Config, ())
    models = data.get("models")
    for name, body in models.items() if isinstance(models, dict) else ():
        if isinstance(body, dict):
            yield from _unknown(body, Model, ("models", name))


def is_known(path: Path) -> bool:
    """Whether a path belongs to a key that means something here."""
    if len(path) > 2 and path[0] == "models":
        return path[2] in keys_of(Model)
    return not path or path[0] in keys_of(Config)


def _unknown(
    data: Mapping[str, Any], cls: type[attrs.AttrsInstance], path: Path
) -> Iterator[Fault]:
    known = keys_of(cls)
    lowered = {key.lower(): key for key in known}
    for key in map(str, data):
        if key not in known:
            near = difflib.get_close_matches(key.lower(), lowered, n=1, cutoff=0.75)
            hint = f"; did you mean '{lowered[near[0]]}'?" if near else ""
            yield Fault((*path, key), f"unknown key, ignored{hint}")


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what was left empty: a key without a value has its default."""
    return {str(key): value for key, value in data.items() if value is not None}


def _build(
    cls: type[_Section], data: Mapping[str, Any], path: Path, faults: list[Fault]
) -> _Section:
    try:
        return _converter.structure(data, cls)
    except ClassValidationError as error:
        found = list(_faults(error, path))
    faults.extend(found)
    wrong = {fault.path[len(path)] for fault in found}
    return _converter.structure({k: v for k, v in data.items() if k not in wrong}, cls)


def _faults(error: BaseException, path: Path) -> Iterator[Fault]:
    """Walk cattrs' tree of errors; the notes on the way hold the path."""
    if not isinstance(error, (ClassValidationError, IterableValidationError)):
        yield Fault(path, str(error))
        return
    for inner in error.exceptions:
        yield from _faults(inner, (*path, *_step(inner, error)))


def _step(inner: BaseException, outer: BaseException) -> Path:
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, IterableValidationNote):
            return (note.index,)
        if isinstance(note, AttributeValidationNote) and isinstance(outer, ClassValidationError):
            return (_keys_by_name(outer.cl)[note.name],)
    return ()


def _keys_by_name(cls: type) -> dict[str, str]:
    return {a.name: key_of(a) for a in attrs.fields(cls)}


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:  # noqa: ANN401 -- cattrs' hook signature
        if type(value) is not kind:
            raise TypeError(f"expected {_KINDS[kind]}, found {_shown(value)}")
        return value

    return hook


def _whole(what: str, lowest: int, highest: int = HIGHEST) -> Callable[[Any, Any], int]:
    def hook(value: Any, _: Any) -> int:  # noqa: ANN401 -- cattrs' hook signature
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"expected {what}, found {_shown(value)}")
        return value

    return hook


def _command(value: Any, _: Any) -> Command:  # noqa: ANN401 -- cattrs' hook signature
    if type(value) is not str:
        raise TypeError(f"expected a command as text, found {_shown(value)}")
    if "\0" in value:
        raise ValueError("holds a NUL character, which no argument can")
    try:
        return split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments: {error}") from None


def _texts(value: Any, _: Any) -> tuple[str, ...]:  # noqa: ANN401 -- cattrs' hook signature
    if not isinstance(value, list):
        raise TypeError(f"expected a list of texts, found {_shown(value)}")
    for index, item in enumerate(value):
        if type(item) is not str:
            raise TypeError(f"item {index + 1}: expected a text, found {_shown(item)}")
    return tuple(value)


def _section(cls: type) -> Callable[[Mapping[str, Any], Any], Any]:
    renames = {a.name: override(rename=key_of(a)) for a in attrs.fields(cls)}
    # cattrs types the overrides together with its own flags, so a mapping of them fits neither.
    return make_dict_structure_fn(cls, _converter, **renames)  # type: ignore[arg-type]


_converter = Converter()
for _kind in _KINDS:
    _converter.register_structure_hook(_kind, _exactly(_kind))
_converter.register_structure_hook(Timeout, _whole("whole seconds, at least 1", 1))
_converter.register_structure_hook(Seconds, _whole("whole seconds, at least 0", 0))
_converter.register_structure_hook(Ttl, _whole("whole seconds, 0 for never or -1", -1))
_converter.register_structure_hook(Port, _whole("a port, 1 to 65535", 1, 65535))
_converter.register_structure_hook(Count, _whole("a whole number, at least 0", 0))
_converter.register_structure_hook(Command, _command)
_converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _texts)
_converter.register_structure_hook_func(
    lambda kind: kind == Mapping[str, MacroValue], lambda value, _: dict(value)
)
_converter.register_structure_hook_factory(attrs.has, _section)
