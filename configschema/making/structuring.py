"""Plain data to frozen classes: the one cattrs converter, and its errors as faults with paths.

Owns what each kind of value accepts. It is what llama-swap's YAML library accepts for its types:
a number where a text is wanted, ``yes`` where a truth value is, but no text for a number.
"""

from __future__ import annotations

import math
import re
import warnings
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

from configschema.keys.commandline import Command, split
from configschema.keys.fields import (
    LOG_OUTPUTS,
    WHOLE,
    Duration,
    Expression,
    LogOutputs,
    MacroValue,
    Pattern,
    Secret,
    Whole,
    fields_of,
    is_section,
    key_of,
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
from configschema.text.problems import Fault, Path

MAY_BE_EMPTY = (("group", "matrix"), ("fifo",))  # for llama-swap the same as leaving it out
YES, NO = frozenset({"y", "Y", "yes", "on"}), frozenset({"n", "N", "no", "off"})
OLDER_FORMS: dict[type, str] = {
    Profile: "a list of models was the form of older files: write pins, each a name and its model",
}
_NOT_IN_RE2 = re.compile(
    r"\(\?(?:<?[=!]|P=|>|\#|[a-zA-Z]*x)|(?<!\\)(?:\\\\)*\\(?:[1-9]|Z|N\{)|[*+?}]\+"
)
_ONLY_IN_RE2 = re.compile(r"\\[pPQEzC]|\\x\{|\[\[:|\(\?(?:<[a-zA-Z]|[a-zA-Z-]*U)|.\(\?[a-zA-Z-]+\)")
_Section = TypeVar("_Section", Config, Model)


class WrongValue(ValueError):
    """A value is not of its kind; `values` are what the message's ``{}`` stand for."""

    def __init__(self, message: str, *values: object) -> None:
        self.message = message
        self.values = values
        super().__init__(message)


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


# What each kind accepts. Each hook has the signature that cattrs wants: the value and its type.


def _text(value: Any, _: Any) -> str:  # noqa: ANN401 -- cattrs' hook signature
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise WrongValue("expected a text, found {}", value)


def _secret(value: Any, _: Any) -> Secret:  # noqa: ANN401 -- cattrs' hook signature
    if isinstance(value, (dict, list)):
        raise WrongValue("expected a key as text")
    return Secret(_text(value, str))


def _truth(value: Any, _: Any) -> bool:  # noqa: ANN401 -- cattrs' hook signature
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in YES | NO:
        return value in YES
    raise WrongValue("expected true or false, found {}", value)


def _duration(value: Any, _: Any) -> Duration:  # noqa: ANN401 -- cattrs' hook signature
    if not isinstance(value, str):
        raise WrongValue("expected a time such as 5s or 1m30s, found {}", value)
    return Duration(value)


def _log_outputs(value: Any, _: Any) -> LogOutputs:  # noqa: ANN401 -- cattrs' hook signature
    outputs = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    if outputs not in (["both"], ["none"]) and not set(outputs) <= set(LOG_OUTPUTS):
        words = "both, none, or some of proxy, upstream and http, with commas"
        raise WrongValue(f"expected {words}, found {{}}", value)
    return LogOutputs(value)


def _whole(kind: Whole) -> Callable[[Any, Any], int]:
    def hook(value: Any, _: Any) -> int:  # noqa: ANN401 -- cattrs' hook signature
        number = _number(value, kind.cut)
        too_low = kind.lowest is not None and number is not None and number < kind.lowest
        if number is None or too_low or (number > kind.highest and not kind.clamp):
            digits = isinstance(value, str) and value.strip("-").isdecimal()
            way = "; write it without quotes" if digits else ""
            raise WrongValue(f"expected {kind.expected}, found {{}}{way}", value)
        return min(number, kind.highest)

    return hook


def _number(value: object, cut: bool) -> int | None:
    """Return a whole number, or None for what is none; nothing, under a name, is 0."""
    if value is None:
        return 0
    if isinstance(value, float) and math.isfinite(value) and (cut or value.is_integer()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _command(value: Any, _: Any) -> Command:  # noqa: ANN401 -- cattrs' hook signature
    if isinstance(value, (dict, list)):
        raise WrongValue("expected a command as text, found {}", value)
    text = _text(value, str)
    if "\0" in text:
        raise WrongValue("holds a NUL character, which no argument can")
    return split(text)


def _pattern(value: Any, _: Any) -> Pattern:  # noqa: ANN401 -- cattrs' hook signature
    text = _text(value, str)
    if _NOT_IN_RE2.search(text):
        raise WrongValue("{} has what RE2, llama-swap's regular expressions, does not know", text)
    if not _ONLY_IN_RE2.search(text):
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                re.compile(text)
        except (re.error, RecursionError, OverflowError):
            raise WrongValue("{} is no regular expression", text) from None
    return Pattern(text)


def _expression(value: Any, _: Any) -> Expression:  # noqa: ANN401 -- cattrs' hook signature
    text = _text(value, str)
    if text:
        from configschema.keys.expressions import wrong_with  # each start would wait for it

        if wrong := wrong_with(text):
            message, *word = filter(None, wrong)
            raise WrongValue(message, text, *word)
    return Expression(text)


def _word(value: Any, kind: Any) -> Any:  # noqa: ANN401 -- cattrs' hook signature
    words = get_args(kind)
    if value == "" and words in MAY_BE_EMPTY:
        return words[0]
    if not isinstance(value, str) or value not in words:
        raise WrongValue(f"expected {' or '.join(words)}, found {{}}", value)
    return value


def _list(value: Any, kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- cattrs' hook signature
    item = get_args(kind)[0]
    if not isinstance(value, list):
        way = "write each as '- NAME=value'" if isinstance(value, dict) else "put it in [ ]"
        raise WrongValue(f"expected a list, found {{}}; {way}", value)
    return tuple(_each(item, enumerate(value), lambda found: found is not None))


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
for _kind, _hook in {str: _text, bool: _truth, Secret: _secret, Command: _command}.items():
    _converter.register_structure_hook(_kind, _hook)
_converter.register_structure_hook(Pattern, _pattern)
_converter.register_structure_hook(Duration, _duration)
_converter.register_structure_hook(Expression, _expression)
_converter.register_structure_hook(LogOutputs, _log_outputs)
for _whole_kind, _range in WHOLE.items():
    _converter.register_structure_hook(_whole_kind, _whole(_range))
_converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
for _form, _of_form in {Literal: _word, tuple: _list, Mapping: _names}.items():
    _converter.register_structure_hook_func(
        lambda kind, form=_form: get_origin(kind) is form,  # type: ignore[misc]
        _of_form,
    )
_converter.register_structure_hook_factory(is_section, _section)
