"""Attack a daemon on this machine with all inputs and behaviours, and print one table.

The exit status is 1 if other clients had to wait, if an input took more than its share of the
memory, if an answer was wrong, or if the daemon's log has a traceback.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.attack.running import HEADER, attacked, row_of

SIZE = 32 << 20  # bytes of a body
CLIENTS = 50


def main() -> int:
    """Run all attacks and return the exit status."""
    print(HEADER)
    size, clients = (int(value) for value in sys.argv[1:] or (SIZE, CLIENTS))
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for verdict in attacked(Path(folder), size, clients):
            faults += bool(verdict.fault)
            print(row_of(verdict), flush=True)
    print(f"{faults} breaches")
    return 1 if faults else 0


sys.exit(main())
