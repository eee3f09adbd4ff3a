"""Seconds as an operator reads them."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Write a limit or a duration: ``120s``, ``15.2s``, ``0.213s``."""
    if value == int(value):
        return f"{int(value)}s"
    return f"{value:.1f}s" if value >= 1 else f"{value:.3f}s"
