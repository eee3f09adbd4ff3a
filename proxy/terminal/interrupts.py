"""Ctrl-C and SIGTERM during a command: the command puts the terminal in order, then ends by them.

Owns the handlers of these signals. Without them, Python would end in the middle of a frame.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM has come."""


@contextmanager
def tidied() -> Iterator[None]:
    """Let the block clean up after Ctrl-C or SIGTERM; then end the process by that signal.

    In the block, Ctrl-C is a KeyboardInterrupt. A shell script ends with the command only if the
    signal ends the command. After a command that returns 130, the script goes on.
    """
    listen()
    try:
        yield
    except KeyboardInterrupt:
        _end_by(signal.SIGINT)
    except Terminated:
        _end_by(signal.SIGTERM)
    finally:
        _handle(signal.SIG_DFL)


def listen() -> None:
    """Let the next signal interrupt the command. Later ones do not disturb its clean-up."""
    _handle(_interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    _handle(signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def _end_by(number: signal.Signals) -> None:
    _handle(signal.SIG_DFL)
    with contextlib.suppress(OSError):  # the reader has gone
        sys.stdout.flush()
    os.kill(os.getpid(), number)
