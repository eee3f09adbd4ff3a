"""``python -m proxy`` is ``llamadoze``, and so is the command.

Owns what holds for the process from its first line to its last: Ctrl-C, and that Python does not
look for garbage while modules are loaded.
"""

from __future__ import annotations

import gc
import signal
import sys

# Until the daemon or a command listens for it, Ctrl-C just ends: there is nothing to put away, and
# a traceback of an import says nothing to anybody.
signal.signal(signal.SIGINT, signal.SIG_DFL)
# What an import makes stays: to look at it again and again takes a tenth of the start. Commands
# that go on for long look for garbage from their beginning, and seldom; a check ends before there
# is much.
gc.disable()
gc.set_threshold(10_000, 20, 20)

from proxy.command import cli  # noqa: E402 -- what is above must come first


def main() -> int:
    """Do what the command line says and return the exit status."""
    try:
        return cli.main()
    finally:
        gc.freeze()  # the end frees it all: to look for garbage before takes longer than a check


if __name__ == "__main__":
    sys.exit(main())
