"""The expressions of a matrix, such as ``(a | b) & c`` and ``+set``: from text to a tree.

Owns the grammar, which is llama-swap's: ``&`` (together) binds tighter than ``|`` (either), and
``+name`` inserts another set. `matrixsets` works out what the trees allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

_TOKEN = re.compile(r"\s*(?:(?P<name>[\w.-]+)|(?P<sign>[()&|+])|(?P<wrong>\S))")
DEEPEST = 100  # open parentheses


class WrongExpression(Exception):
    """An expression has a syntax error.

    `at` is the character's index, from 0. Each ``{}`` in `message` stands for one of `values`.
    """

    def __init__(self, message: str, at: int, *values: str) -> None:
        self.message = message
        self.at = at
        self.values = values
        super().__init__(message.replace("{}", "%r") % values)


@attrs.frozen
class Name:
    """A model, by its id or by a short name."""

    name: str
    at: int


@attrs.frozen
class Reference:
    """Another set: ``+name``."""

    name: str
    at: int


@attrs.frozen
class Together:
    """All of these at once."""

    parts: tuple[Expression, ...]


@attrs.frozen
class Either:
    """One of these."""

    parts: tuple[Expression, ...]


Expression = Name | Reference | Together | Either


@attrs.frozen
class _Token:
    text: str
    at: int
    is_name: bool = False


def read(text: str) -> Expression:
    """Read an expression.

    Raises:
        WrongExpression: the expression has a syntax error, at the place that the error names.
    """
    tokens = list(_tokens(text))
    if not tokens:
        raise WrongExpression("the expression is empty", 0)
    reader = _Reader([*tokens, _Token("", len(text.rstrip()))])
    whole = reader.either()
    if left := reader.next.text:
        raise WrongExpression("expected '&', '|' or the end, found {}", reader.next.at, left)
    return whole


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while found := _TOKEN.match(text, position):
        position = found.end()
        if found["wrong"]:
            raise WrongExpression("unexpected {}", found.start("wrong"), found["wrong"])
        start = found.start(found.lastgroup or 0)
        yield _Token(text[start:position], start, found["name"] is not None)


@attrs.define
class _Reader:
    """One method per rule of the grammar. The last token is empty."""

    tokens: list[_Token]
    depth: int = 0
    taken: int = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.taken]

    def take(self) -> _Token:
        self.taken += 1
        return self.tokens[self.taken - 1]

    def either(self) -> Expression:
        parts = [self.together()]
        while self.next.text == "|":
            self.take()
            parts.append(self.together())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def together(self) -> Expression:
        parts = [self.single()]
        while self.next.text == "&":
            self.take()
            parts.append(self.single())
        return parts[0] if len(parts) == 1 else Together(tuple(parts))

    def single(self) -> Expression:
        token = self.take() if self.next.text else self.next
        if token.is_name:
            return Name(token.text, token.at)
        if token.text == "+" and self.next.is_name and self.next.at == token.at + 1:
            return Reference(self.take().text, token.at)
        if token.text == "(":
            return self.inside(token)
        wanted = "the name of a set right after '+'" if token.text == "+" else "a name, '+' or '('"
        found = self.next if token.text == "+" else token
        raise WrongExpression(f"expected {wanted}, found {_end(found)}", found.at, *_text(found))

    def inside(self, opening: _Token) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise WrongExpression(f"parentheses are nested more than {DEEPEST} deep", opening.at)
        inner = self.either()
        if self.next.text != ")":
            message = f"expected ')' for the '(' at character {opening.at + 1}"
            found = self.next
            raise WrongExpression(f"{message}, found {_end(found)}", found.at, *_text(found))
        self.take()
        self.depth -= 1
        return inner


def _end(token: _Token) -> str:
    return "{}" if token.text else "the end"


def _text(token: _Token) -> tuple[str, ...]:
    return (token.text,) if token.text else ()


def leaves(expression: Expression) -> Iterator[Name | Reference]:
    """Return the names and references of an expression, from left to right."""
    if isinstance(expression, (Name, Reference)):
        yield expression
    else:
        for part in expression.parts:
            yield from leaves(part)


def references(trees: Mapping[str, Expression]) -> dict[str, list[str]]:
    """Return the sets that each set refers to."""
    return {
        name: [leaf.name for leaf in leaves(tree) if isinstance(leaf, Reference)]
        for name, tree in trees.items()
    }
