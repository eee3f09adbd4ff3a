"""Changes in a JSON text that leave all other bytes as they are. Pure functions.

Owns the two possible changes: remove a member, set a member.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from proxy.forwarding.jsontext import (
    Container,
    Member,
    Steps,
    Text,
    look_into,
    root_of,
    skip_blanks,
)

A_COPY = 4 << 20  # bytes that are copied in one step: some milliseconds
MOST_ADDED = 1000  # entries that a path may add to a list


def without(text: Text, path: Sequence[str]) -> Steps[Text]:
    """Return the text without the member at a path.

    Raises:
        NotJson: the text is not JSON.
    """
    at, end = (yield from root_of(text)), len(text)
    for key in path[:-1]:
        inner = yield from _child(text, at, end, key)
        if inner is None:
            return text
        at, end = inner
    if _is_no_index(text, at, path[-1]):
        return text
    while True:
        container = yield from look_into(text, at, path[-1].__eq__, end)
        if not container.found:
            return text
        member = container.found[-1]
        start, behind = member.start, member.end
        if member.comma_after >= 0:
            behind = yield from skip_blanks(text, member.comma_after + 1)
        elif member.comma_before >= 0:
            start = member.comma_before
        whole = memoryview(text)
        text = yield from joined(b"", [whole[:start], whole[behind:]])
        if container.is_list:
            return text
        end -= behind - start


def with_value(text: Text, path: Sequence[str], value: object, *, soft: bool) -> Steps[Text]:
    """Return the text with a value at a path. Missing objects and lists on the path are made.

    Args:
        text: the whole text.
        path: keys and indices; -1 adds to a list.
        value: the value to set.
        soft: whether an existing value stays.

    Raises:
        NotJson: the text is not JSON.
    """
    at, end, depth = (yield from root_of(text)), len(text), 0
    while depth < len(path) - 1:
        inner = yield from _child(text, at, end, path[depth])
        if inner is None:
            break
        (at, end), depth = inner, depth + 1
    key, rest = path[depth], path[depth + 1 :]
    if _is_no_index(text, at, key) and key != LAST:
        return text
    container = yield from look_into(text, at, key.__eq__, end)
    if soft and container.found and not rest:
        return text
    made = _built(rest, value)
    if made is NOTHING:
        return text
    written = json.dumps(made).encode()
    whole = memoryview(text)
    if container.found:
        ends = [0, *(member.end for member in container.found)]
        starts = [*(member.value for member in container.found), len(text)]
        kept = [whole[start:stop] for start, stop in zip(ends, starts, strict=True)]
        return (yield from joined(written, kept))
    added = _added(container, key, written)
    if added is None:
        return text
    comma = b", " if container.count else b""
    kept = [whole[: container.last], whole[container.last :]]
    return (yield from joined(comma + added, kept))


def joined(between: bytes, parts: Sequence[memoryview]) -> Steps[Text]:
    """Return parts joined by `between`. A large text is copied in steps."""
    if sum(map(len, parts)) <= A_COPY:
        return between.join(parts)
    text = bytearray()
    for number, part in enumerate(parts):
        text += between if number else b""
        for start in range(0, len(part), A_COPY):
            text += part[start : start + A_COPY]
            yield
    return text


NOTHING = object()
LAST = "-1"


def _built(path: Sequence[str], value: object) -> object:
    """Return a value inside the objects and lists that a path makes around it."""
    if not path:
        return value
    inner = _built(path[1:], value)
    key = path[0]
    if inner is NOTHING:
        return NOTHING
    if key == LAST:
        return [inner]
    if _is_index(key):
        return NOTHING if int(key) >= MOST_ADDED else [None] * int(key) + [inner]
    return {key: inner}


def _added(container: Container, key: str, written: bytes) -> bytes | None:
    """Return a member to add at the end. None if a list cannot have it."""
    if not container.is_list:
        return json.dumps(key).encode() + b": " + written
    if key == LAST:
        return written
    if not _is_index(key) or int(key) >= container.count + MOST_ADDED:
        return None
    return b"null, " * (int(key) - container.count) + written


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


def _is_no_index(text: Text, at: int, key: str) -> bool:
    """Whether a list is there and the key is no index, so that the list need not be searched."""
    return text[at : at + 1] == b"[" and not _is_index(key)


def _child(text: Text, at: int, end: int, key: str) -> Steps[tuple[int, int] | None]:
    """Return where the object or list below a key begins and ends. None if there is none."""
    if _is_no_index(text, at, key):
        return None
    container = yield from look_into(text, at, key.__eq__, end)
    if not container.found:
        return None
    member: Member = container.found[-1]
    begins = text[member.value : member.value + 1]
    return (member.value, member.end) if begins in (b"{", b"[") else None
