"""What operators read: one line per event, as JSON for machines or as text for a terminal.

Owns the form of the log. The events themselves are written where things happen.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Literal, TextIO

import attrs
import msgspec
import structlog

from proxy.observing.logbook import PROXY, LogBook
from proxy.observing.logwriter import LogWriter, notice_as_text

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
    text = form == "text" or (form == "auto" and sys.stdout.isatty())
    writer = _writer_to(sys.stdout)
    writer.notice = notice_as_text if text else _notice_as_json
    lowest = LEVELS.get(level.lower(), logging.INFO)
    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=_text(colors=colors) if text else [_as_json],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_: _Lines(writer, book),
    )
    if book is not None:
        book.show = partial(_show_raw, writer) if text else partial(_show_as_json, writer, {})
    bound.cache_clear()
    logging.basicConfig(handlers=[_ToOperators()], level=logging.WARNING, force=True)


# What moves a terminal's cursor, ends a line, or turns the direction of what follows (CWE-117).
UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
LONGEST_LINE = 16 * 1024  # bytes of a model's line that has no end
ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))
QUICK = msgspec.json.Encoder(enc_hook=str)


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
    return _json_of(event)


def _json_of(event: Mapping[str, Any]) -> str:
    """Return ASCII; in a quarter of the time where all of it is that."""
    try:
        encoded = QUICK.encode(event)
    except (TypeError, UnicodeEncodeError):
        return ENCODER.encode(event)
    return encoded.decode() if encoded.isascii() else ENCODER.encode(event)


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


@cache
def _writer_to(file: TextIO) -> LogWriter:
    """Return the one way to a file: what waits to be written has an order."""
    return LogWriter(file)


def flush() -> None:
    """Write what has not been written yet, as far as its reader allows."""
    _writer_to(sys.stdout).flush()


def _notice_as_json(dropped: int) -> bytes:
    event = notice_as_text(dropped).decode().rstrip()
    return f"{_json_of({'event': event, 'level': 'warning', 'dropped': dropped})}\n".encode()


def _show_raw(writer: LogWriter, _: str, output: bytes) -> None:
    """Write a model's output as it is: for people."""
    writer.write(output)


def _show_as_json(writer: LogWriter, begun: dict[str, bytes], model: str, output: bytes) -> None:
    """Write each line of a model's output as a line of JSON, with the model's name."""
    *lines, rest = (begun.get(model, b"") + output).split(b"\n")
    if len(rest) > LONGEST_LINE:
        lines, rest = [*lines, rest], b""
    begun[model] = rest
    now = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r")
        facts = {"event": text, "model": model, "logger": "upstream", "level": "info"}
        writer.write(f"{_json_of({**facts, 'timestamp': now})}\n".encode())


@attrs.frozen
class _Lines:
    """Write lines, and keep the last of them."""

    writer: LogWriter
    book: LogBook | None

    def msg(self, line: str) -> None:
        if self.book is not None:
            self.book.tell(line)
            if PROXY not in self.book.shown:
                return
        self.writer.write(f"{line}\n".encode("utf-8", "replace"))

    debug = info = warning = error = critical = msg


class _ToOperators(logging.Handler):
    """Write what libraries log in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log: structlog.stdlib.BoundLogger = structlog.get_logger(record.name)
        level = record.levelname.lower()
        write = getattr(log, level if level in LEVELS else "error")
        write(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)
