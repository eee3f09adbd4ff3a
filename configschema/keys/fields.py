"""What a key of the file is: its name, its meaning, and the kinds of values.

Owns the kinds (a port, a time limit, one of several words), and how a class's fields become keys.
`schema` and `sections` have the keys themselves. `kinds` checks whether a value fits its kind.
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
"""An amount of memory in GiB; fractions are allowed."""
Gpus = NewType("Gpus", object)
"""GPUs: their number, or a tuple of their names."""

Secret = NewType("Secret", str)
"""An API key. No message and no log ever shows it."""
Duration = NewType("Duration", str)
"""A duration in Go's notation: ``5s``, ``1m30s``, ``500ms``."""
LogOutputs = NewType("LogOutputs", str)
"""Which logs are shown: one word, or some of `LOG_OUTPUTS` with commas."""
Pattern = NewType("Pattern", str)
"""A regular expression."""
Expression = NewType("Expression", str)
"""A JMESPath expression that is true or false of a JSON value."""
LOG_OUTPUTS = ("proxy", "upstream", "http")
MacroValue = str | int | float | bool

HIGHEST = 1_000_000_000  # thirty years of seconds


@attrs.frozen
class Whole:
    """Which whole numbers a kind accepts.

    Attributes:
        expected: the kind's name in a message.
        lowest: the lowest number; None also accepts negative numbers.
        highest: the highest number.
        cut: whether ``1.5`` is accepted as 1, as llama-swap does for its own keys.
        clamp: whether a higher number is accepted as the highest.
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
    """A part of the file. Its fields are its keys, and sections with the same values are equal.

    attrs would generate these methods for each of thirty classes, which costs time at each start
    and each check. So they are here once, and the classes have ``eq=False, repr=False``.
    """

    __slots__ = ()
    __attrs_attrs__: ClassVar[Any]

    def __eq__(self, other: object) -> bool:
        """Whether all compared fields are equal."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        if other is self:
            return True
        fields = (a.name for a in attrs.fields(type(self)) if a.eq)
        return all(getattr(self, name) == getattr(other, name) for name in fields)

    __hash__ = None  # type: ignore[assignment] # most have mappings, which have none

    def __repr__(self) -> str:
        """Show all fields that are not secret."""
        fields = (a for a in attrs.fields(type(self)) if a.repr)
        said = ((a.name, getattr(self, a.name)) for a in fields)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said)})"


def key(doc: str, default: object = attrs.NOTHING, *, name: str = "", **more: Any) -> Any:  # noqa: ANN401 -- as attrs.field: what it returns stands for the field's value
    """Declare a key of the file.

    Args:
        doc: the key's meaning, for the JSON Schema and the reference.
        default: the value without the key.
        name: the key in the file, if that is not the field's name in camel case.
        more: further arguments of `attrs.field`.
    """
    return attrs.field(default=default, metadata={"doc": doc, "key": name}, **more)


def keys(doc: str, *, name: str = "", **more: Any) -> Any:  # noqa: ANN401 -- as `key`
    """Declare a key whose value is a mapping, empty by default."""
    return key(doc, attrs.Factory(dict), name=name, **more)


def inner(default: object, *, eq: bool = True) -> Any:  # noqa: ANN401 -- as `key`
    """Declare a field that is computed, not a key. `eq` says whether it is compared."""
    return attrs.field(default=default, metadata={"inner": True}, eq=eq, repr=eq)


def key_of(attribute: attrs.Attribute[object]) -> str:
    """Return the key in the file for a field."""
    head, *rest = attribute.name.split("_")
    return str(attribute.metadata.get("key") or head + "".join(part.title() for part in rest))


@functools.cache
def fields_of(cls: type[attrs.AttrsInstance]) -> Mapping[str, attrs.Attribute[object]]:
    """Return the fields of a section by their keys in the file."""
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
    """Return an optional type without its None."""
    members = [member for member in typing.get_args(kind) if member is not types.NoneType]
    optional = typing.get_origin(kind) in (typing.Union, types.UnionType) and len(members) == 1
    return members[0] if optional else kind


@functools.cache
def inside(kind: Any) -> Any:  # noqa: ANN401 -- any annotation
    """Return the type of the items of a list or a mapping, or None for any other type."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return members[0]
    return members[1] if origin is Mapping else None


@functools.cache
def holds_secrets(kind: Any) -> bool:  # noqa: ANN401 -- any annotation
    """Whether any part of a type is secret."""
    kind = without_none(kind)
    if is_section(kind):
        return any(map(holds_secrets, types_of(kind).values()))
    return kind is Secret or (inside(kind) is not None and holds_secrets(inside(kind)))
