"""What a key of the file is: its name, its meaning, and the kinds of value there are.

Owns the kinds (a port, a time limit, a word of a few) and how a class's fields become keys. Which
keys there are is said in `schema` and `sections`; whether a value fits its kind in `kinds`.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, NewType

import attrs

Timeout = NewType("Timeout", int)
Seconds = NewType("Seconds", int)
Ttl = NewType("Ttl", int)
Port = NewType("Port", int)
Count = NewType("Count", int)
Positive = NewType("Positive", int)
Share = NewType("Share", int)
Number = NewType("Number", int)
AnySeconds = NewType("AnySeconds", int)
Percent = NewType("Percent", int)
Gibibytes = NewType("Gibibytes", float)
"""An amount of memory in GiB; parts of one are taken."""
Gpus = NewType("Gpus", object)
"""How many GPUs, as a number, or which, as a tuple of their names."""

Secret = NewType("Secret", str)
"""An API key: never shown, neither in a message nor in a log."""
Duration = NewType("Duration", str)
"""A time as Go writes it: ``5s``, ``1m30s``, ``500ms``."""
LogOutputs = NewType("LogOutputs", str)
"""Whose log is shown: one word, or some of `LOG_OUTPUTS` with commas."""
Pattern = NewType("Pattern", str)
"""A regular expression."""
Expression = NewType("Expression", str)
"""A JMESPath expression, which is true or false of a JSON value."""
LOG_OUTPUTS = ("proxy", "upstream", "http")
MacroValue = str | int | float | bool

HIGHEST = 1_000_000_000  # thirty years of seconds


@attrs.frozen
class Whole:
    """Which whole numbers a kind takes.

    Attributes:
        expected: the kind in a message.
        lowest: the least that is taken; None takes negative numbers.
        highest: the most that is taken.
        cut: whether ``1.5`` is taken as 1, as llama-swap does for its own keys.
        clamp: whether more than the most is taken as the most.
    """

    expected: str
    lowest: int | None = None
    highest: int = HIGHEST
    cut: bool = True
    clamp: bool = True


WHOLE: dict[Any, Whole] = {
    Timeout: Whole("whole seconds, at least 1", 1, cut=False, clamp=False),
    Seconds: Whole("whole seconds, at least 0", 0),
    Ttl: Whole("whole seconds, 0 for never or -1", -1),
    Port: Whole("a port, 1 to 65535", 1, 65535, clamp=False),
    Count: Whole("a whole number, at least 0", 0),
    Share: Whole("a whole number, 1 to 100", 1, 100),
    Positive: Whole("a whole number, at least 1", 1),
    Number: Whole("a whole number"),
    AnySeconds: Whole("whole seconds"),
    Percent: Whole("a whole number, 0 to 100", 0, 100, cut=False, clamp=False),
}


class Section:
    """A part of the file, whose fields are its keys: equal to another that says the same.

    What attrs would make anew for each of thirty classes stands here once for all (hence their
    ``eq=False, repr=False``): each start, and each check, would wait for it.
    """

    __slots__ = ()
    __attrs_attrs__: ClassVar[Any]

    def __eq__(self, other: object) -> bool:
        """Whether all of it is the same that is compared."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        if other is self:
            return True
        fields = (a.name for a in attrs.fields(type(self)) if a.eq)
        return all(getattr(self, name) == getattr(other, name) for name in fields)

    __hash__ = None  # type: ignore[assignment] # most have names and values, which have none

    def __repr__(self) -> str:
        """Show all that is no secret."""
        fields = (a for a in attrs.fields(type(self)) if a.repr)
        said = ((a.name, getattr(self, a.name)) for a in fields)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said)})"


def key(doc: str, default: object = attrs.NOTHING, *, name: str = "", **more: Any) -> Any:  # noqa: ANN401 -- as attrs.field: what it returns stands for the field's value
    """Declare a key of the file.

    Args:
        doc: what it means, for the JSON Schema and the reference.
        default: what holds without it.
        name: how it is written, where that is not the field's name in camel case.
        more: further arguments of `attrs.field`.
    """
    return attrs.field(default=default, metadata={"doc": doc, "key": name}, **more)


def keys(doc: str, *, name: str = "", **more: Any) -> Any:  # noqa: ANN401 -- as `key`
    """Declare a key that holds names and values, empty by default."""
    return key(doc, attrs.Factory(dict), name=name, **more)


def inner(default: object, *, eq: bool = True) -> Any:  # noqa: ANN401 -- as `key`
    """Declare a field that nobody writes: it is worked out. `eq` says whether it is compared."""
    return attrs.field(default=default, metadata={"inner": True}, eq=eq, repr=eq)


def key_of(attribute: attrs.Attribute[object]) -> str:
    """Return the key an operator writes for a field."""
    head, *rest = attribute.name.split("_")
    return str(attribute.metadata.get("key") or head + "".join(part.title() for part in rest))


@functools.cache
def fields_of(cls: type[attrs.AttrsInstance]) -> Mapping[str, attrs.Attribute[object]]:
    """Return the fields of a section by the keys an operator may write in it."""
    return {key_of(a): a for a in attrs.fields(cls) if not a.metadata.get("inner")}


@functools.cache
def types_of(cls: type[attrs.AttrsInstance]) -> Mapping[str, Any]:
    """Return the types of a section's keys."""
    hints = typing.get_type_hints(cls)
    return {key: hints[a.name] for key, a in fields_of(cls).items()}


@functools.cache
def is_section(kind: Any) -> bool:  # noqa: ANN401 -- any annotation
    """Whether a type is a class whose fields are keys."""
    return isinstance(kind, type) and issubclass(kind, Section)


@functools.cache
def without_none(kind: Any) -> Any:  # noqa: ANN401 -- any annotation
    """Return the type itself of a type that may also be absent."""
    members = [member for member in typing.get_args(kind) if member is not types.NoneType]
    optional = typing.get_origin(kind) in (typing.Union, types.UnionType) and len(members) == 1
    return members[0] if optional else kind


@functools.cache
def inside(kind: Any) -> Any:  # noqa: ANN401 -- any annotation
    """Return the type of what a list or a mapping of names holds, or None for anything else."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return members[0]
    return members[1] if origin is Mapping else None


@functools.cache
def holds_secrets(kind: Any) -> bool:  # noqa: ANN401 -- any annotation
    """Whether something in a type is secret."""
    kind = without_none(kind)
    if is_section(kind):
        return any(map(holds_secrets, types_of(kind).values()))
    return kind is Secret or (inside(kind) is not None and holds_secrets(inside(kind)))
