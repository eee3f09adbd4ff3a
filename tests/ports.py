"""Ports for what tests start: nobody else is given them until the test is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from supervisor.processes.ports import kept_free

_kept: list[contextlib.ExitStack] = []


def free_port(count: int = 8) -> int:
    """Return the first of some free ports that nobody else is given."""
    stack = contextlib.ExitStack()
    first = stack.enter_context(kept_free(count))
    _kept.append(stack)
    return first


def given_back() -> Iterator[None]:
    """Give back, at the end of a fixture, what was asked for during it."""
    before = len(_kept)
    yield
    while len(_kept) > before:
        _kept.pop().close()
