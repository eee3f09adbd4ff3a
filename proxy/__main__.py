"""``python -m proxy`` is ``llamadoze``."""

import sys

from proxy.command.cli import main

sys.exit(main())
