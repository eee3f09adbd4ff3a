"""What a simulation takes for the seconds of a step where nobody says it.

Owns these figures, and imports nothing: the command line shows them.
"""

from __future__ import annotations

TIMES = {
    "start": (30.0, "a start takes"),
    "stop": (1.0, "the end of a process takes"),
    "sleep": (1.0, "falling asleep takes"),
    "wake": (1.0, "a wake takes"),
    "serve": (5.0, "a request takes whose time is not in the trace"),
}
"""What a simulation is told: usual seconds, and of what."""
