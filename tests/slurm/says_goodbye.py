"""The stub, which writes the signal that ends it to a file: ``--goodbye FILE``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the stub with a handler of its own."""
    place = sys.argv.index("--goodbye")
    file = Path(sys.argv[place + 1])

    def leave(number: int, _: object) -> None:
        file.write_text(signal.Signals(number).name)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    arguments = sys.argv[1:place] + sys.argv[place + 2 :]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.peers import stub

    stub.main(arguments)


main()
