"""YAML text to plain data, kept beside the node tree that knows where everything stands.

Owns which plain words are numbers and truth values, ``${env.NAME}``, and duplicate keys. The words
are llama-swap's (Go's yaml.v3): ``yes``, ``on`` and ``12:30`` stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import yaml

from configschema.bounds import check_bounds
from configschema.problems import Fault, Path

LONGEST_NUMBER = 20
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_ENV = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")


class _Loader(yaml.CSafeLoader):
    """A safe loader with the core schema's plain words and no others."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own class attribute, replaced rather than extended


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    value = int(node.value[:LONGEST_NUMBER], 0)
    if len(node.value) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(node.value)} digits")
    return value


for _tag, _words, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_words})$"),
        ["" if letter == "\0" else letter for letter in _first],
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


@attrs.frozen
class Tree:
    """A file read: its data, the nodes it was made from, and what was wrong on the way."""

    data: Any
    root: yaml.Node | None
    faults: tuple[Fault, ...]


def read_tree(text: str, environ: Mapping[str, str]) -> Tree:
    """Read one document.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    check_bounds(text, _Loader)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Tree({}, None, ())
        faults = [
            *_keep_keys_as_text(root, ()),
            *_put_environment(loader, root, environ, ()),
            *_duplicates(root, ()),
        ]
        data = loader.construct_document(root)
        return Tree({} if data is None else data, root, tuple(faults))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Raised by PyYAML's constructors for a value that does not fit the tag it bears.
        raise yaml.YAMLError(f"a value does not fit its tag: {error}") from None
    finally:
        loader.dispose()


def _keep_keys_as_text(node: yaml.Node, path: Path) -> Iterator[Fault]:
    """Let keys be the words that were written: ``1.10`` is a name and no number."""
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield Fault(path, "a key is a word, not a list or a mapping; quote what begins so")
            elif key.tag != MERGE:
                key.tag = TEXT
        node.value = [pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode)]
    for step, child in _children(node):
        yield from _keep_keys_as_text(child, (*path, step))


def _put_environment(
    loader: _Loader, node: yaml.Node, environ: Mapping[str, str], path: Path
) -> Iterator[Fault]:
    """Replace ``${env.NAME}`` in the values; a plain value is typed after the replacement."""
    if isinstance(node, yaml.ScalarNode):
        names = _ENV.findall(node.value)
        for name in names:
            if name not in environ:
                yield Fault(path, f"environment variable '{name}' is not set")
        if names:
            node.value = _ENV.sub(lambda found: environ.get(found[1], ""), node.value)
            if not node.style:
                # PyYAML's stubs leave this one untyped.
                plain = (True, False)
                node.tag = loader.resolve(yaml.ScalarNode, node.value, plain)  # type: ignore[no-untyped-call]
    for step, child in _children(node):
        yield from _put_environment(loader, child, environ, (*path, step))


def _duplicates(node: yaml.Node, path: Path) -> Iterator[Fault]:
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if key.value in seen and key.value != "<<":
                first, again = seen[key.value].start_mark, key.start_mark
                message = f"the key is given twice, on lines {first.line + 1} and {again.line + 1}"
                yield Fault((*path, key.value), message)
            seen[key.value] = key
    for step, child in _children(node):
        yield from _duplicates(child, (*path, step))


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), value
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)
