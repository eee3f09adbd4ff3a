"""How slow this machine is at the moment, so that a limit of speed means the same on each machine.

The limits in tests were set on two cores of AMD EPYC without other work. Machines that are shared
may be slower by a factor of two or three for hours.
"""

from __future__ import annotations

import subprocess
import sys
import time

WORK = "import json, logging, decimal, http.client, asyncio"
USUAL = 0.035  # seconds that a Python needs for this work on the machine of the limits
MOST = 4.0  # a machine that is slower is no machine for tests


def slowness() -> float:
    """Return how much slower this machine is now than the machine of the limits, at least 1."""
    return min(MOST, max(1.0, min(_took() for _ in range(5)) / USUAL))


def _took() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", WORK], check=True)
    return time.monotonic() - began
