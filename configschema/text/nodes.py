"""From YAML text to a tree of nodes that know their place.

Owns how YAML is parsed: its bounds, anchors and aliases, merge keys. `values` decides what the
words in it mean.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NoReturn

import attrs
import yaml

from configschema.text.environment import put_aside

DEEPEST = 50  # levels; real files have fewer than ten
LARGEST = 1_000_000  # nodes; each alias counts with all that it stands for
MERGE = "<<"


@attrs.define(eq=False, slots=True)
class Scalar:
    """A word or a text. `tag` is empty unless the file has a tag or quotes the text.

    A node is `shared` if an alias refers to it.
    """

    text: str
    mark: yaml.Mark
    tag: str
    plain: bool
    shared: bool = False


@attrs.define(eq=False, slots=True)
class Sequence:
    """A list."""

    mark: yaml.Mark
    items: list[Node] = attrs.field(factory=list)
    shared: bool = False


@attrs.define(eq=False, slots=True)
class Mapping:
    """Keys and values in the order of the file. `merged` has its merge keys and their values."""

    mark: yaml.Mark
    pairs: list[tuple[Node, Node]] = attrs.field(factory=list)
    merged: list[tuple[Node, Node]] = attrs.field(factory=list)
    shared: bool = False


Node = Scalar | Sequence | Mapping


class _Named(io.StringIO):
    """A text that tells the parser its file's name, so that every mark has it."""

    name = ""


@attrs.define
class _Open:
    """A collection that is still open, and the number of nodes in it so far."""

    node: Sequence | Mapping
    anchor: str | None
    size: int = 1
    key: Node | None = None


def read_nodes(text: str, file: str) -> Node | None:
    """Read the first document of a text. Return None if the document is empty.

    Raises:
        yaml.MarkedYAMLError: the text is not YAML, or too large.
    """
    stream = _Named(put_aside(text))
    stream.name = file
    loader = yaml.CSafeLoader(stream)
    # PyYAML's own iterator calls twice for each event.
    return _Builder().build(iter(loader.get_event, None))


@attrs.define
class _Builder:
    """Turns events into nodes. An alias becomes the same node object that it refers to."""

    opened: list[_Open] = attrs.field(factory=list)
    anchors: dict[str, tuple[Node, int]] = attrs.field(factory=dict)
    root: Node | None = None

    def build(self, events: Iterator[yaml.Event]) -> Node | None:
        for event in events:
            match event:
                case yaml.ScalarEvent():
                    tag = event.tag or ("" if event.implicit[0] else "!")
                    scalar = Scalar(event.value, _mark(event), tag, event.implicit[0])
                    if event.anchor:
                        self.anchors[event.anchor] = scalar, 1
                    self._add(scalar, event, 1)
                case yaml.AliasEvent():
                    node, size = self._stands_for(event)
                    node.shared = True
                    self._add(node, event, size)
                case yaml.SequenceStartEvent():
                    self._open(Sequence(_mark(event)), event)
                case yaml.MappingStartEvent():
                    self._open(Mapping(_mark(event)), event)
                case yaml.CollectionEndEvent():
                    self._close(event)
                case yaml.DocumentEndEvent():
                    return self.root
                case _:
                    pass
        return None

    def _open(self, node: Sequence | Mapping, event: yaml.CollectionStartEvent) -> None:
        if len(self.opened) >= DEEPEST:
            _refuse(f"values are nested more than {DEEPEST} levels deep", event)
        self.opened.append(_Open(node, event.anchor))

    def _close(self, event: yaml.Event) -> None:
        closed = self.opened.pop()
        if closed.anchor:
            self.anchors[closed.anchor] = closed.node, closed.size
        self._add(closed.node, event, closed.size)

    def _stands_for(self, event: yaml.AliasEvent) -> tuple[Node, int]:
        if any(event.anchor == outer.anchor for outer in self.opened):
            _refuse("this alias is inside the value that it refers to", event)
        if event.anchor not in self.anchors:
            _refuse("no anchor of this name comes before this alias", event)
        return self.anchors[event.anchor]

    def _add(self, node: Node, event: yaml.Event, size: int) -> None:
        if not self.opened:
            self.root = node
            return
        inner = self.opened[-1]
        inner.size += size
        if inner.size > LARGEST:
            _refuse(f"the file has more than {LARGEST} values, counting aliases in full", event)
        if isinstance(inner.node, Sequence):
            inner.node.items.append(node)
        elif inner.key is None:
            inner.key = node
        else:
            key, inner.key = inner.key, None
            if isinstance(key, Scalar) and key.text == MERGE and key.plain:
                inner.node.merged.append((key, node))
            else:
                inner.node.pairs.append((key, node))


def _mark(event: yaml.Event) -> yaml.Mark:
    # Every event of the C parser has a mark with all the fields that are read here.
    return event.start_mark  # type: ignore[return-value]


def _refuse(what: str, event: yaml.Event) -> NoReturn:
    raise yaml.MarkedYAMLError(None, None, what, _mark(event))


def holds_shared(node: Node) -> bool:
    """Whether an alias elsewhere refers to this node or to something in it."""
    if isinstance(node, Scalar):
        return node.shared
    inner = node.items if isinstance(node, Sequence) else [value for _, value in node.pairs]
    return node.shared or any(map(holds_shared, inner))


def merge_sources(node: Mapping) -> list[Node]:
    """Return the nodes that are merged into a mapping, by precedence."""
    return [
        source
        for _, merged in node.merged
        for source in (merged.items if isinstance(merged, Sequence) else [merged])
    ]
