"""The stub, but it lives a moment longer after SIGTERM: ``stubborn.py SECONDS OPTIONS...``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main(moment: float) -> None:
    def later(*_: object) -> None:
        threading.Timer(moment, os._exit, (0,)).start()

    signal.signal(signal.SIGTERM, later)
    del sys.argv[1]
    runpy.run_path(os.path.join(os.path.dirname(__file__), "stub.py"), run_name="__main__")


if __name__ == "__main__":
    main(float(sys.argv[1]))
