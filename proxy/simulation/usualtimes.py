"""The default seconds of each step in a simulation.

Owns these figures. Imports nothing, since the command line's help shows them.
"""

from __future__ import annotations

TIMES = {
    "start": (30.0, "a start takes"),
    "stop": (1.0, "the end of a process takes"),
    "sleep": (1.0, "falling asleep takes"),
    "wake": (1.0, "a wake takes"),
    "serve": (5.0, "a request takes if the trace has no time for it"),
}
"""The default seconds by option, and the step that takes them."""
