"""``python -m proxy`` is ``llamadoze``."""

import sys

from proxy.cli import main

sys.exit(main())
