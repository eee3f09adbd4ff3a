"""Ports for tests: no other process of the tests gets a port until its test is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from supervisor.processes.ports import kept_free

_kept: list[contextlib.ExitStack] = []


def free_port(count: int = 8) -> int:
    """Return the first of some free ports, which nobody else gets until they are given back."""
    stack = contextlib.ExitStack()
    first = stack.enter_context(kept_free(count))
    _kept.append(stack)
    return first


def given_back() -> Iterator[None]:
    """Give back, at the end of a fixture, the ports that were taken during it."""
    before = len(_kept)
    yield
    while len(_kept) > before:
        _kept.pop().close()
