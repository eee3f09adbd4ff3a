"""Small files of the kernel, below ``/proc`` and ``/sys``.

Owns that a file that is not there, or may not be read, tells nothing. What the files mean is known
where they are read.
"""

from __future__ import annotations

from pathlib import Path


def number_in(file: Path) -> int | None:
    """Return the number in a file; None if it cannot be read, or holds no number."""
    text = text_in(file)
    return int(text) if text.isdecimal() else None


def text_in(file: Path) -> str:
    """Return what is in a file; nothing if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
