"""Requests that run or wait while a test looks at the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.system.daemon import Process

APART = 0.15  # seconds between two requests, so that they arrive in this order


@contextmanager
def streams(daemon: Process, *names: str, **more: object) -> Iterator[None]:
    """Keep a request for each model running or waiting in this block; cut them all at its end."""
    threads = [threading.Thread(target=_ask, args=(daemon, name, more)) for name in names]
    for thread in threads:
        thread.start()
        time.sleep(APART)
    try:
        yield
    finally:
        for name in reversed(names):
            daemon.ask("POST", f"/api/models/unload/{name}")
        for thread in threads:
            thread.join(20)


def _ask(daemon: Process, name: str, more: dict[str, object]) -> None:
    try:
        daemon.chat(name, **{"chunks": 600, "pause": 0.1, **more})
    except (OSError, ValueError, HTTPException):  # the request was cut
        return
