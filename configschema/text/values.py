"""From nodes to plain data: texts, numbers, truth values, lists, and dicts with text keys.

Owns duplicate keys, merge keys, tags, and the insertion of values of the environment. `words`
decides which plain words are numbers and truth values.
"""

from __future__ import annotations

from typing import Any

import attrs
import yaml

from configschema.text.environment import MARK, Environment
from configschema.text.nodes import MERGE, Mapping, Node, Scalar, Sequence, merge_sources
from configschema.text.places import place_of
from configschema.text.problems import Fault, Path
from configschema.text.words import EXPLICIT, plain_word


@attrs.define
class Reader:
    """Turns nodes into plain data, and collects what is wrong in `faults`."""

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
                what = "a key is a word, not a list or a mapping; quote a key that begins so"
                self.faults.append(Fault(path, what))
                continue
            name = self._put_in(key, path)
            if name in places:
                first, again = (mark.line + 1 for mark in (places[name], key.mark))
                what = f"the key is given twice, on lines {first} and {again}"
                self.faults.append(Fault((*path, name), what, place=place_of(key.mark)))
                continue
            places[name] = key.mark
            own[name] = self.data(value, (*path, name))
        files = [key.mark.name for key, _ in node.merged]
        if len(files) > len(set(files)):
            what = "<< is given twice; merge a list instead: <<: [*first, *second]"
            self.faults.append(Fault((*path, MERGE), what))
        return {**self._merged(node, path), **own} if node.merged else own

    def _merged(self, node: Mapping, path: Path) -> dict[str, Any]:
        """Return the values that the merge keys bring. The source that is named first wins."""
        found: dict[str, Any] = {}
        for source in merge_sources(node):
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
                self.faults.append(Fault(path, "this YAML tag is not supported"))
            elif len(node.tag) > 1 and not text:
                message = "YAML reads {} as a tag, not as text: put it in quotes"
                self.faults.append(Fault(path, message, (node.tag,)))
            return text
        try:
            return EXPLICIT[node.tag](text)
        except ValueError:
            self.faults.append(
                Fault(path, f"its tag says !!{node.tag[18:]}, but the value is none")
            )
            return text

    def _put_in(self, node: Scalar, path: Path) -> str:
        if MARK not in node.text:
            return node.text
        text, wrong = self.environment.put_in(node.text)
        self.faults += (Fault(path, reason, near=use) for use, reason in wrong.items())
        if not wrong:
            node.text = text  # so that `places` finds the key by its text
        return text
