"""Whether a port of this machine is free, so that a stranger's answer is never taken for ours."""

from __future__ import annotations

import socket


def is_free(port: int) -> bool:
    """Whether nobody listens on a port, on this machine's own address or on all of them."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            trial.listen(1)
        except OSError:
            return False
        return True
