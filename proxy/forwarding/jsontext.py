"""Searching a JSON text without building its values. Pure functions.

Owns finding members, wherever they are. All work is done in steps of some milliseconds. Callers can
let other tasks run between two steps. `jsonedits` makes changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import attrs
import msgspec

T = TypeVar("T")
Text = bytes | bytearray
"""JSON as it came."""
Steps = Generator[None, None, T]
"""Work in steps. It is done when the generator is exhausted."""

WINDOW = 1 << 18  # bytes that are searched in one step
A_LOOK = 1 << 16  # the same for patterns, which take 300 bytes of memory for each string
A_STEP = A_LOOK // 2
BREATH = 2000  # brackets and quotes in one step
MEMBERS = 200  # in one step
LONGEST_KEY = 4096  # bytes of a key that is compared; longer keys are never wanted
MOST_ALIKE = 8  # members of one object with the same key
MOST_MEMBERS = 100_000  # in one object or list that is searched
MOST_DEPTH = 10_000
AT_ONCE = 4 << 20  # bytes that are searched in C, which takes some milliseconds
MOST_AT_ONCE = 2000  # members that are searched in C
MOST_COMMAS = 10_000  # the same for commas
MOST_BLANKS = 4096  # the same for blanks
BLANKS = re.compile(rb"[ \t\n\r]*")
# Atomic groups, since possessive quantifiers match too much in Python before 3.11.5.
WORDS = re.compile(rb'(?>(?:[^"\\]+|\\.)*)', re.DOTALL)
# Strings, the bytes between them, and flat lists and objects. The pattern never backtracks.
_WORD = rb'"(?>(?:[^"\\]+|\\.)*)"'
_INSIDE = rb'(?>(?:[^"{}\[\]]+|' + _WORD + rb")*)"
FLAT = re.compile(
    rb'(?>(?:[^"{}\[\]]+|' + _WORD + rb"|\[" + _INSIDE + rb"\]|\{" + _INSIDE + rb"\})*)", re.DOTALL
)
SCALAR = re.compile(rb"[^,\]}\s\"\[{]*")


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class NotJson(ValueError):
    """The part of the text that was read is not JSON."""


def done(steps: Steps[T]) -> T:
    """Do all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


@attrs.frozen
class Member:
    """A member of an object, or an entry of a list.

    Attributes:
        start: where the member begins, including its key, if it has one.
        value: where its value begins.
        end: the place behind its value.
        comma_before: where the comma before it is; -1 without.
        comma_after: where the comma after it is; -1 without.
    """

    start: int
    value: int
    end: int
    comma_before: int
    comma_after: int


@attrs.frozen
class Container:
    """An object or a list, with the wanted members.

    Attributes:
        is_list: whether it is a list.
        found: the members with a wanted key, in their order.
        count: how many members there are; in a list, only up to the wanted one.
        last: the place behind the value of the last of these, or behind the opening bracket.
    """

    is_list: bool
    found: Sequence[Member]
    count: int
    last: int


def root_of(text: Text) -> Steps[int]:
    """Return where the text's object begins.

    Raises:
        NotJson: there is no object.
    """
    start = yield from skip_blanks(text, 3 if text.startswith(b"\xef\xbb\xbf") else 0)
    if text[start : start + 1] != b"{":
        raise NotJson("it is not an object")
    return start


def look_into(
    text: Text, at: int, is_wanted: Callable[[str], bool], end: int | None = None
) -> Steps[Container]:
    """Search an object or a list for the wanted members.

    Args:
        text: the whole text.
        at: where the opening bracket is.
        is_wanted: returns whether a key, or an index, is wanted.
        end: the place behind the closing bracket, if that is known.

    Raises:
        NotJson: it is neither an object nor a list, or has no end.
    """
    stop = len(text) if end is None else end
    if stop - at <= AT_ONCE and (quick := _quickly(text, at, stop, is_wanted)):
        return quick
    is_list = text[at : at + 1] == b"["
    closing = b"]" if is_list else b"}"
    found: list[Member] = []
    count, comma, last = 0, -1, at + 1
    place = yield from skip_blanks(text, at + 1)
    if text[place : place + 1] == closing:
        return Container(is_list, found, 0, last)
    while True:
        start, key = place, str(count)
        if not is_list:
            key, place = yield from _key(text, place)
        last = yield from _skip_value(text, place)
        after = yield from skip_blanks(text, last)
        sign = text[after : after + 1]
        if is_wanted(key):
            following = after if sign == b"," else -1
            found.append(Member(start, place, last, comma, following))
            if is_list:  # an index occurs only once
                return Container(is_list, found, count + 1, last)
            if len(found) > MOST_ALIKE:
                raise NotJson(f"the key {key[:40]!r} occurs more than {MOST_ALIKE} times")
        count += 1
        if count > MOST_MEMBERS:
            raise NotJson(f"an object or a list has more than {MOST_MEMBERS} members")
        if count % MEMBERS == 0:
            yield
        if sign == closing:
            return Container(is_list, found, count, last)
        if sign != b",":
            raise NotJson(f"expected a comma or an end at byte {after}")
        comma = after
        place = yield from skip_blanks(text, after + 1)


def _quickly(text: Text, at: int, end: int, is_wanted: Callable[[str], bool]) -> Container | None:
    """Do the same mostly in C. None if that is not possible, such as for a repeated key."""
    held = _held_in(text, at, end)
    if held is None or len(held) > MOST_AT_ONCE:
        return None
    is_list = text[at : at + 1] == b"["
    found: list[Member] = []
    comma, last = -1, at + 1
    for key, value in held:
        start = place = _behind_blanks(text, last if comma < 0 else comma + 1)
        if not is_list:
            place = _value_of(text, start, key)
        last = place + len(value)
        if place < 0 or text[place:last] != value:
            return None
        after = _behind_blanks(text, last)
        if is_wanted(key):
            following = after if text[after : after + 1] == b"," else -1
            found.append(Member(start, place, last, comma, following))
        comma = after
    return Container(is_list, found, len(held), last)


def _held_in(text: Text, at: int, end: int) -> list[tuple[str, bytes]] | None:
    """Return keys or indices with the text of their values. None if this is not strict JSON."""
    if text.count(b",", at, end) > MOST_COMMAS:
        return None
    inside = memoryview(text)[at:end]
    try:
        if text[at : at + 1] == b"{":
            return [(key, bytes(raw)) for key, raw in _OBJECT.decode(inside).items()]
        return [(str(number), bytes(raw)) for number, raw in enumerate(_LIST.decode(inside))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _value_of(text: Text, at: int, key: str) -> int:
    """Return where the value of a key begins. -1 if the text has another key, or other escapes."""
    quoted = json.dumps(key, ensure_ascii=False).encode()
    if len(quoted) > LONGEST_KEY or not text.startswith(quoted, at):
        return -1
    return _behind_blanks(text, _behind_blanks(text, at + len(quoted)) + 1)


def _behind_blanks(text: Text, at: int) -> int:
    piece = text[at : at + MOST_BLANKS]
    return at + len(piece) - len(piece.lstrip(b" \t\n\r"))


def _key(text: Text, at: int) -> Steps[tuple[str, int]]:
    """Return a key, and where its value begins."""
    if text[at : at + 1] != b'"':
        raise NotJson(f"expected a key at byte {at}")
    end = yield from _skip_text(text, at)
    key = _read(text[at:end]) if end - at <= LONGEST_KEY else ""
    colon = yield from skip_blanks(text, end)
    if text[colon : colon + 1] != b":":
        raise NotJson(f"expected a colon at byte {colon}")
    return key, (yield from skip_blanks(text, colon + 1))


def _read(key: Text) -> str:
    try:
        return str(json.loads(key))
    except ValueError as error:  # of JSON, or of UTF-8
        raise NotJson(f"a key cannot be read: {error}") from None


def skip_blanks(text: Text, at: int) -> Steps[int]:
    """Return the next place that is not blank."""
    while True:
        match = BLANKS.match(text, at, at + WINDOW)
        end = match.end() if match else at
        if end < at + WINDOW:
            return end
        at = end
        yield


def _skip_text(text: Text, at: int) -> Steps[int]:
    """Return the place behind a string that begins with a quote."""
    place = at + 1
    while True:
        end = text.find(b'"', place, place + WINDOW)
        stop = end if end >= 0 else min(place + WINDOW, len(text))
        if text.find(b"\\", place, stop) >= 0:
            match = WORDS.match(text, place, place + A_LOOK)
            stop = match.end() if match else place
            end = stop if text[stop : stop + 1] == b'"' else -1
        if end >= 0:
            return end + 1
        if stop >= len(text) - 1:
            raise NotJson("a string has no closing quote")
        place = stop
        yield


def _skip_value(text: Text, at: int) -> Steps[int]:
    sign = text[at : at + 1]
    if sign == b'"':
        return (yield from _skip_text(text, at))
    if sign not in (b"{", b"["):
        return (yield from _skip_scalar(text, at))
    depth, place, looks = 1, at + 1, 0
    while depth:
        match = FLAT.match(text, place, place + A_LOOK)
        before, place = place, match.end() if match else place
        sign = text[place : place + 1]
        looks += 1
        if place - before > A_STEP or looks % BREATH == 0:
            yield
        if sign == b'"':
            place = yield from _skip_text(text, place)
        elif sign and sign in b"{[]}":
            depth += 1 if sign in b"{[" else -1
            place += 1
        elif not sign:
            raise NotJson("a bracket is not closed")
        if depth > MOST_DEPTH:
            raise NotJson(f"it is nested more than {MOST_DEPTH} levels deep")
    return place


def _skip_scalar(text: Text, at: int) -> Steps[int]:
    """Return where a number or a word ends."""
    start = at
    while True:
        match = SCALAR.match(text, at, at + WINDOW)
        end = match.end() if match else at
        if end < at + WINDOW:
            if end == start:
                raise NotJson(f"expected a value at byte {start}")
            return end
        at = end
        yield
