"""Readable amounts for a terminal: seconds, bytes, and times.

Owns only how they look.
"""

from __future__ import annotations

import time

MINUTE, HOUR, DAY = 60, 3600, 86400
GIB, MIB = 1 << 30, 1 << 20
NOTHING = "-"


def span(seconds: float | None) -> str:
    """Return a duration in at most two units."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    whole = int(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < 2 * DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def since(moment: float | None, now: float) -> str:
    """Return how long ago a moment was. Both are in seconds since 1970."""
    return NOTHING if moment is None else span(now - moment)


def size(count: float | None) -> str:
    """Return an amount of memory, given in bytes."""
    if not count:
        return NOTHING if count is None else "0"
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB"


def clock(moment: float) -> str:
    """Return the time of day of a moment, in this machine's time zone."""
    return time.strftime("%H:%M:%S", time.localtime(moment))
