"""Percent-encoding (RFC 3986, 2.1), decoded in C: what urllib does of 60 KB takes 30 ms."""

from __future__ import annotations

import re
from functools import lru_cache

_ESCAPE = re.compile(rb"%(?=[0-9A-Fa-f]{2})")


@lru_cache(8)  # one request's path is read by several
def unescaped(raw: bytes) -> bytes:
    """Return what is written with escapes; what is none stays as it is."""
    if b"%" not in raw:
        return raw
    python = _ESCAPE.sub(rb"\\x", raw.replace(b"\\", b"\\\\"))
    return python.decode("unicode_escape").encode("latin-1")


def as_text(raw: bytes) -> str:
    """Return it as text; bytes that are no UTF-8 are replaced."""
    return unescaped(raw).decode("utf-8", "replace")
