"""Small files of the kernel, below ``/proc`` and ``/sys``.

Owns the rule that a file that is missing or cannot be read tells nothing. The readers know what the
files mean.
"""

from __future__ import annotations

from pathlib import Path


def number_in(file: Path) -> int | None:
    """Return the number in a file; None if the file cannot be read or holds no number."""
    text = text_in(file)
    return int(text) if text.isdecimal() else None


def text_in(file: Path) -> str:
    """Return what is in a file; empty if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
