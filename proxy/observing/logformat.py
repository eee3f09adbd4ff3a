"""What operators read: one line per event, as JSON for machines or as text for a terminal.

Owns the form of the log. The events themselves are written where things happen.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from functools import cache
from typing import Literal, TextIO

import attrs
import structlog

from proxy.observing.logbook import PROXY, LogBook

Format = Literal["auto", "json", "text"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(form: Format, level: str, book: LogBook | None = None) -> None:
    """Set the log up for the process.

    Args:
        form: ``auto`` writes text to a terminal and JSON to anything else.
        level: the lowest level written; an unknown one counts as info, as in llama-swap.
        book: keeps the last lines, and says whether they are shown at all.
    """
    lowest = LEVELS.get(level.lower(), logging.INFO)
    text = form == "text" or (form == "auto" and sys.stdout.isatty())
    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=_text(colors=colors) if text else [_as_json],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_: _Lines(sys.stdout, book),
    )
    bound.cache_clear()
    logging.basicConfig(handlers=[_ToOperators()], level=logging.WARNING, force=True)


UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ENCODER = json.JSONEncoder(default=str)


def _text(*, colors: bool) -> list[structlog.typing.Processor]:
    """Return the steps to a line of text."""
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _without_repetition,
        _on_one_line,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0),
    ]


def _as_json(log: object, method: str, event: structlog.typing.EventDict) -> str:
    """Return a line of JSON; in one step, since there is one for every request."""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(log, method, event)
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
    return ENCODER.encode(event)


@cache
def bound(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger for lines that are written for every request: to make one takes a while."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name).bind()
    return logger


SAID_IN_THE_EVENT = (
    *("model", "duration_s", "timeout_s", "reason", "status", "left", "request_id"),
    *("kept", "adjusted", "replaced", "removed", "added", "settings", "failures"),
    *("memory", "freed_bytes", "left_bytes", "cycles", "trend_bytes"),
)


def _on_one_line(
    _log: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Show what would move a terminal's cursor, or look like another line, as a question mark."""
    event["event"] = UNPRINTABLE.sub("?", str(event["event"]))
    return event


def _without_repetition(
    _log: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Drop what a line of text says in words anyway."""
    return {key: value for key, value in event.items() if key not in SAID_IN_THE_EVENT}


TEXT = (_without_repetition, _on_one_line)


@attrs.frozen
class _Lines:
    """Write lines; a reader that went away, or a full disk, must not end the daemon."""

    file: TextIO
    book: LogBook | None

    def msg(self, line: str) -> None:
        if self.book is not None:
            self.book.tell(line)
            if PROXY not in self.book.shown:
                return
        try:
            self.file.write(line + "\n")
            self.file.flush()
        except (OSError, ValueError):  # nobody reads any more, or the disk is full
            pass

    debug = info = warning = error = critical = msg


class _ToOperators(logging.Handler):
    """Write what libraries log in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log: structlog.stdlib.BoundLogger = structlog.get_logger(record.name)
        level = record.levelname.lower()
        write = getattr(log, level if level in LEVELS else "error")
        write(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)
