"""YAML text to a tree of nodes that know where they stand, and from there to plain data.

Owns how YAML is read: bounds, anchors and merge keys, duplicate keys, and which plain words are
numbers and truth values. The words are llama-swap's (Go's yaml.v3): ``on`` and ``12:30`` are text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from collections.abc import Mapping as Mapping_
from functools import cached_property
from typing import Any, NoReturn

import attrs
import yaml

from configschema.environment import MARK, Environment, as_written, put_aside
from configschema.problems import Fault, Path, Place
from configschema.words import EXPLICIT, plain_word

DEEPEST = 50  # levels; real files have fewer than ten
LARGEST = 1_000_000  # nodes, with every alias counted as what it stands for
MERGE = "<<"
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # libyaml counts all of these


@attrs.define(eq=False, slots=True)
class Scalar:
    """A word or a text; `tag` is empty unless one was written or the text was quoted.

    A node is `shared` if an alias stands for it.
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
    """Keys and values in the order of the file; `merged` are its merge keys."""

    mark: yaml.Mark
    pairs: list[tuple[Node, Node]] = attrs.field(factory=list)
    merged: list[tuple[Node, Node]] = attrs.field(factory=list)
    shared: bool = False


Node = Scalar | Sequence | Mapping


class _Named(io.StringIO):
    """A text that tells the parser its file, so that every mark knows it."""

    name = ""


@attrs.define
class _Open:
    """A collection that is not closed yet, and the nodes counted in it."""

    node: Sequence | Mapping
    anchor: str | None
    size: int = 1
    key: Node | None = None


def read_nodes(text: str, file: str) -> Node | None:
    """Read the first document of a text; None if it is empty.

    Raises:
        yaml.MarkedYAMLError: it is not YAML, or of no sane size.
    """
    stream = _Named(put_aside(text))
    stream.name = file
    loader = yaml.CSafeLoader(stream)
    # Its own iterator asks twice for each event.
    return _Builder().build(iter(loader.get_event, None))


@attrs.define
class _Builder:
    """Events to nodes: an alias is the very node it stands for."""

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
            _refuse(f"more than {DEEPEST} levels", event)
        self.opened.append(_Open(node, event.anchor))

    def _close(self, event: yaml.Event) -> None:
        closed = self.opened.pop()
        if closed.anchor:
            self.anchors[closed.anchor] = closed.node, closed.size
        self._add(closed.node, event, closed.size)

    def _stands_for(self, event: yaml.AliasEvent) -> tuple[Node, int]:
        if any(event.anchor == outer.anchor for outer in self.opened):
            _refuse("an alias stands inside of what it stands for", event)
        if event.anchor not in self.anchors:
            _refuse("this alias has no anchor before it", event)
        return self.anchors[event.anchor]

    def _add(self, node: Node, event: yaml.Event, size: int) -> None:
        if not self.opened:
            self.root = node
            return
        inner = self.opened[-1]
        inner.size += size
        if inner.size > LARGEST:
            _refuse(f"more than {LARGEST} values, its aliases followed", event)
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
    # Every event of the C parser has one, and it has all that is read of a mark.
    return event.start_mark  # type: ignore[return-value]


def _refuse(what: str, event: yaml.Event) -> NoReturn:
    raise yaml.MarkedYAMLError(None, None, what, _mark(event))


@attrs.define
class Reader:
    """Nodes to plain data; what is wrong on the way is kept in `faults`."""

    environment: Environment
    faults: list[Fault] = attrs.field(factory=list)
    _done: dict[int, Any] = attrs.field(factory=dict)

    def data(self, node: Node, path: Path = ()) -> Any:  # noqa: ANN401 -- raw YAML
        """Return texts, numbers, truth values, None, lists and dicts with text keys."""
        if isinstance(node, Scalar):
            return self._scalar(node, path)
        if id(node) not in self._done:  # an alias is the same node again
            made = self._list(node, path) if isinstance(node, Sequence) else self._dict(node, path)
            self._done[id(node)] = made
        return self._done[id(node)]

    def _list(self, node: Sequence, path: Path) -> list[Any]:
        return [self.data(item, (*path, number)) for number, item in enumerate(node.items)]

    def _dict(self, node: Mapping, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        places: dict[str, yaml.Mark] = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                what = "a key is a word, not a list or a mapping; quote what begins so"
                self.faults.append(Fault(path, what))
                continue
            name = self._put_in(key, path)
            if name in places:
                first, again = (mark.line + 1 for mark in (places[name], key.mark))
                what = f"the key is given twice, on lines {first} and {again}"
                self.faults.append(Fault((*path, name), what))
            places.setdefault(name, key.mark)
            own.setdefault(name, self.data(value, (*path, name)))
        if len(node.merged) > 1:
            what = "the merge key is given twice; merge a list: <<: [*first, *second]"
            self.faults.append(Fault((*path, MERGE), what))
        return {**self._merged(node, path), **own} if node.merged else own

    def _merged(self, node: Mapping, path: Path) -> dict[str, Any]:
        """Return what the merge keys bring; what is named first wins."""
        found: dict[str, Any] = {}
        for source in _merge_sources(node):
            if isinstance(source, Mapping):
                found = {**self.data(source, path), **found}
            else:
                self.faults.append(Fault((*path, MERGE), "only names and values can be merged"))
        return found

    def _scalar(self, node: Scalar, path: Path) -> Any:  # noqa: ANN401 -- raw YAML
        text = self._put_in(node, path)
        if node.plain and not node.tag:
            try:
                return plain_word(text)
            except ValueError as error:
                self.faults.append(Fault(path, str(error)))
                return text
        if node.tag not in EXPLICIT:
            if node.tag.startswith("tag:yaml.org,2002:"):
                self.faults.append(Fault(path, "its tag is not supported"))
            return text
        try:
            return EXPLICIT[node.tag](text)
        except ValueError:
            self.faults.append(Fault(path, f"is no !!{node.tag[18:]}, as its tag says"))
            return text

    def _put_in(self, node: Scalar, path: Path) -> str:
        if MARK in node.text:
            node.text, wrong = self.environment.put_in(node.text)
            self.faults += (Fault(path, reason) for reason in wrong)
        return node.text


def holds_shared(node: Node) -> bool:
    """Whether something in a node is used elsewhere by an alias."""
    if isinstance(node, Scalar):
        return node.shared
    inner = node.items if isinstance(node, Sequence) else [value for _, value in node.pairs]
    return node.shared or any(map(holds_shared, inner))


def _merge_sources(node: Mapping) -> list[Node]:
    return [
        source
        for _, merged in node.merged
        for source in (merged.items if isinstance(merged, Sequence) else [merged])
    ]


@attrs.frozen
class Source:
    """The files behind a tree, to find in them where something stands.

    Attributes:
        root: of the tree; None if the files are empty.
        texts: the files' own texts by name; the first one stands in where nothing is found.
    """

    root: Node | None
    texts: Mapping_[str, str]

    @cached_property
    def lines(self) -> dict[str, list[str]]:
        """The lines of each file, as the parser counts them."""
        return {file: _LINE_END.split(text) for file, text in self.texts.items()}

    def find(self, path: Path, offset: int | None = None, near: str = "") -> Place:
        """Return where a path begins, or the nearest part of it that is in the files.

        Args:
            path: keys and indices from the top.
            offset: characters into the text at the path, if that is one line.
            near: what to look for in the text at the path.
        """
        if self.root is None:
            return Place(next(iter(self.texts)), 1, 1)
        mark, node, reached = self.root.mark, self.root, 0
        for step in path:
            key, found = _child(node, step)
            if found is None:
                break
            mark, node, reached = (key or found).mark, found, reached + 1
        if isinstance(node, Scalar) and reached == len(path):
            if offset is not None and (spot := self._inside(node, offset)):
                return spot
            if near and near in node.text and (spot := self._spot(near, node.mark)):
                return spot
        return Place(mark.name or "", mark.line + 1, mark.column + 1)

    def _inside(self, node: Scalar, offset: int) -> Place | None:
        """Return a place in a text that stands in one line just as it is read."""
        line, column = self.lines[node.mark.name or ""][node.mark.line], node.mark.column
        column += line[column : column + 1] in ("'", '"')
        if not line.startswith(as_written(node.text), column):
            return None
        return Place(node.mark.name or "", node.mark.line + 1, column + offset + 1)

    def _spot(self, near: str, mark: yaml.Mark) -> Place | None:
        """Return where a word stands first from a mark on."""
        lines = self.lines[mark.name or ""]
        for number, line in enumerate(lines[mark.line :], mark.line):
            column = line.find(near, mark.column if number == mark.line else 0)
            if column >= 0:
                return Place(mark.name or "", number + 1, column + 1)
        return None


def _child(node: Node, step: str | int) -> tuple[Node | None, Node | None]:
    if isinstance(node, Sequence):
        found = isinstance(step, int) and step < len(node.items)
        return None, node.items[int(step)] if found else None
    if isinstance(node, Scalar):
        return None, None
    for key, value in reversed(node.pairs):
        if isinstance(key, Scalar) and key.text == step:
            return key, value
    if step == MERGE and node.merged:
        return node.merged[-1]
    found_in = (_child(source, step) for source in _merge_sources(node))
    return next((pair for pair in found_in if pair[1] is not None), (None, None))
