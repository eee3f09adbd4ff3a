"""Why a model may not be asked to leave for another: its own setting, or a lease with an end. Pure.

Owns what is said of it. Who gives and ends leases is the supervisor's.
"""

from __future__ import annotations

from math import inf

import attrs


@attrs.frozen(kw_only=True)
class Pin:
    """A model stays where it is.

    Attributes:
        holder: who wants that; nothing where the file does.
        until: when it ends, on Trio's clock.
        reason: why, in the holder's words.
    """

    holder: str = ""
    until: float = inf
    reason: str = ""


KEPT = Pin(reason="keep: true")
