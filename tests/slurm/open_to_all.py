"""The stub, open to the network of its node, to compare with requests through the entrance."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.peers import stub

inner = socket.create_server


def on_all(address: tuple[str, int], **more: int) -> socket.socket:
    """Listen on every address instead."""
    return inner(("0.0.0.0", address[1]), **more)  # type: ignore[arg-type]


socket.create_server = on_all  # type: ignore[assignment]
stub.main(sys.argv[1:])
