"""``python -m proxy`` is ``llamadoze``, and so is the command."""

from __future__ import annotations

import signal
import sys

# Until the daemon listens for it, Ctrl-C just ends: there is nothing to put away, and a traceback
# of an import says nothing to anybody.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from proxy.command.cli import main  # noqa: E402 -- what is above must come first

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
