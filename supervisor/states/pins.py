"""Why a model may not be asked to make room: its own setting, or a lease with an end. Pure.

Owns what is said of it. The supervisor gives and ends leases.
"""

from __future__ import annotations

from math import inf

import attrs


@attrs.frozen(kw_only=True)
class Pin:
    """A model stays where it is.

    Attributes:
        holder: the holder of the lease; empty if the configuration pins the model.
        until: when the pin ends, on Trio's clock.
        reason: why the model stays, in the holder's words.
    """

    holder: str = ""
    until: float = inf
    reason: str = ""


KEPT = Pin(reason="keep: true")
