"""The place of a path in the files, or of a spot in the text that the path leads to.

Owns the way from a path back to line and column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Texts
from functools import cached_property

import attrs
import yaml

from configschema.text.environment import as_written
from configschema.text.nodes import MERGE, Mapping, Node, Scalar, Sequence, merge_sources
from configschema.text.problems import Path, Place

_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # libyaml counts all of these as line ends
_Found = tuple[Node | None, Node | None]


@attrs.frozen
class Source:
    """The files behind a tree, to find the place of a value in them.

    Attributes:
        root: the tree's root; None if the files are empty.
        texts: the files' own texts by name. A place that is not found is put into the first one.
    """

    root: Node | None
    texts: Texts[str, str]
    _indices: dict[int, dict[str | int, _Found]] = attrs.field(factory=dict, init=False)

    @cached_property
    def lines(self) -> dict[str, list[str]]:
        """The lines of each file, as the parser counts them."""
        return {file: _LINE_END.split(text) for file, text in self.texts.items()}

    def find(self, path: Path, offset: int | None = None, near: str = "") -> Place:
        """Return the place where a path's value begins, or of the longest part of the path that
        exists.

        Args:
            path: keys and indices from the top.
            offset: characters into the text at the path, if the text is on one line.
            near: a word to look for in the text at the path.
        """
        if self.root is None:
            return Place(next(iter(self.texts)), 1, 1)
        mark, node, reached = self.root.mark, self.root, 0
        for step in path:
            key, found = self._child(node, step)
            if found is None:
                break
            mark, node, reached = (key or found).mark, found, reached + 1
        if isinstance(node, Scalar) and reached == len(path):
            if offset is not None and (spot := self._inside(node, offset)):
                return spot
            if near and near in as_written(node.text) and (spot := self._spot(near, node.mark)):
                return spot
        return place_of(mark)

    def _inside(self, node: Scalar, offset: int) -> Place | None:
        """Return a place in a text that is on one line and has no escapes."""
        line, column = self.lines[node.mark.name or ""][node.mark.line], node.mark.column
        column += line[column : column + 1] in ("'", '"')
        if not line.startswith(as_written(node.text), column):
            return None
        return Place(node.mark.name or "", node.mark.line + 1, column + offset + 1)

    def _spot(self, near: str, mark: yaml.Mark) -> Place | None:
        """Return the first place of a word from a mark on."""
        lines = self.lines[mark.name or ""]
        for number, line in enumerate(lines[mark.line :], mark.line):
            column = line.find(near, mark.column if number == mark.line else 0)
            if column >= 0:
                return Place(mark.name or "", number + 1, column + 1)
        return None

    def _child(self, node: Node, step: str | int) -> _Found:
        """Return the key and the value that one step of a path leads to, or two Nones."""
        if isinstance(node, Sequence):
            found = isinstance(step, int) and step < len(node.items)
            return None, node.items[int(step)] if found else None
        if isinstance(node, Scalar):
            return None, None
        if step == MERGE and node.merged:
            return node.merged[-1]
        if id(node) not in self._indices:
            self._indices[id(node)] = _by_key(node)
        if (own := self._indices[id(node)].get(step)) is not None:
            return own
        found_in = (self._child(source, step) for source in merge_sources(node))
        return next((pair for pair in found_in if pair[1] is not None), (None, None))


def _by_key(node: Mapping) -> dict[str | int, _Found]:
    pairs = [pair for pair in node.pairs if isinstance(pair[0], Scalar)]
    # If a key is given twice, the first one counts.
    return {key.text: (key, value) for key, value in reversed(pairs) if isinstance(key, Scalar)}


def place_of(mark: yaml.Mark) -> Place:
    """Return the place of a parser's mark."""
    return Place(mark.name or "", mark.line + 1, mark.column + 1)
