"""The log for operators: one line per event, as JSON for machines or as text for a terminal.

Owns the format of the log. The modules in which events happen write their words.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Literal, TextIO

import attrs
import msgspec
import structlog

from proxy.observing.logbook import PROXY, LogBook
from proxy.observing.logwriter import LogWriter, notice_as_text
from supervisor.processes.output import ESCAPE, without_escapes

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
        level: the lowest level that is written; as in llama-swap, an unknown one counts as info.
        book: keeps the last lines, and says whether the lines go to the combined log at all.
    """
    text = form == "text" or (form == "auto" and sys.stdout.isatty())
    writer = _writer_to(sys.stdout)
    writer.notice = notice_as_text if text else _notice_as_json
    lowest = LEVELS.get(level.lower(), logging.INFO)
    lines = _Lines(writer, book)
    OF_REQUESTS.begin(lowest, None if text else lines)
    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=_text(colors=colors) if text else [_as_json],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_: lines,
    )
    if book is not None:
        shown = _ModelLines(writer, _line_as_text if text else _line_as_json)
        book.show, book.show_end = shown.write, shown.end
    logging.basicConfig(handlers=[_ToOperators()], level=logging.WARNING, force=True)


# Characters that move a terminal's cursor, end a line, or turn the text's direction (CWE-117).
UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
LONGEST_LINE = 16 * 1024  # bytes of a model's line without a newline
OUTPUT = "output"  # both streams of a process: two pipes would lose the order of their lines
ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))
QUICK = msgspec.json.Encoder(enc_hook=str)


def _text(*, colors: bool) -> list[structlog.typing.Processor]:
    """Return the steps that make a line of text."""
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _without_repetition,
        _on_one_line,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            # With rich, structlog's own formatter shows the values of variables, such as keys.
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _as_json(log: object, method: str, event: structlog.typing.EventDict) -> str:
    """Return a line of JSON, in one step, because every request writes one."""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(log, method, event)
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = _now()
    return _json_of(event).decode()


def _json_of(event: Mapping[str, Any]) -> bytes:
    """Return JSON in ASCII. If the values are ASCII, this takes a quarter of the time."""
    try:
        encoded = QUICK.encode(event)
    except (TypeError, UnicodeEncodeError):
        return ENCODER.encode(event).encode()
    return encoded if encoded.isascii() else ENCODER.encode(event).encode()


def _now() -> str:
    seconds = time.time()
    return f"{_whole(int(seconds))}.{int(seconds % 1 * 1e6):06d}Z"


@lru_cache(1)
def _whole(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@attrs.define(eq=False)
class RequestLines:
    """The log's line for each request. As JSON, it is written without structlog.

    structlog's chain would be a tenth of the cost of a small request. All other lines use it.
    """

    _lowest: int = attrs.field(default=logging.INFO, init=False)
    _lines: _Lines | None = attrs.field(default=None, init=False)

    def begin(self, lowest: int, lines: _Lines | None) -> None:
        """Write lines of this level and above, as JSON to `lines` if that is given."""
        self._lowest, self._lines = lowest, lines

    def write(self, level: str, text: str, facts: dict[str, Any]) -> None:
        """Write a line. The caller does not use `facts` again."""
        if LEVELS[level] < self._lowest:
            return
        if self._lines is None:
            getattr(structlog.get_logger("proxy"), level)(text, **facts)
        else:
            facts |= {"event": text, "level": level, "timestamp": _now()}
            self._lines.put(_json_of(facts) + b"\n")


OF_REQUESTS = RequestLines()


SAID_IN_THE_EVENT = (
    *("model", "duration_s", "timeout_s", "reason", "status", "left", "request_id"),
    *("kept", "adjusted", "replaced", "removed", "added", "settings", "failures"),
    *("memory", "freed_bytes", "left_bytes", "cycles", "trend_bytes"),
    *("method", "path", "stream", "address", "models", "files"),
)


def _on_one_line(
    _log: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace characters that could move the cursor or forge a line by question marks."""
    event["event"] = UNPRINTABLE.sub("?", str(event["event"]))
    return event


def _without_repetition(
    _log: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Drop the fields that a line of text repeats from its words."""
    return {key: value for key, value in event.items() if key not in SAID_IN_THE_EVENT}


TEXT = (_without_repetition, _on_one_line)


@cache
def _writer_to(file: TextIO) -> LogWriter:
    """Return the only writer to a file, so that lines stay in their order."""
    return LogWriter(file)


def flush() -> None:
    """Write the lines that wait, as far as the reader takes them."""
    _writer_to(sys.stdout).flush()


def _notice_as_json(dropped: int) -> bytes:
    event = notice_as_text(dropped).decode().rstrip()
    return _json_of({"event": event, "level": "warning", "dropped": dropped}) + b"\n"


@attrs.define(eq=False)
class _ModelLines:
    """Writes the output of models, each line with the name of its model."""

    _writer: LogWriter
    _form: Callable[[str, str], bytes]
    _begun: dict[str, bytes] = attrs.field(factory=dict, init=False)

    def write(self, model: str, output: bytes) -> None:
        *lines, rest = (self._begun.pop(model, b"") + output).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        if rest:
            self._begun[model] = rest
        for line in lines:
            # If a line is drawn several times, such as a progress bar, the last version counts.
            text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
            self._writer.write(self._form(model, text) + b"\n")

    def end(self, model: str) -> None:
        """Write the last line of a process, if that has no newline."""
        if model in self._begun:
            self.write(model, b"\n")


def _line_as_text(model: str, line: str) -> bytes:
    return f"<{model}> | {line}".encode()


def _line_as_json(model: str, line: str) -> bytes:
    facts = {"event": "Output", "model": model, "stream": OUTPUT, "line": line}
    facts |= {"logger": "upstream", "level": "info", "timestamp": _now()}
    return _json_of(facts)


@attrs.frozen
class _Lines:
    """Writes lines, and keeps the latest ones."""

    writer: LogWriter
    book: LogBook | None

    def msg(self, line: str) -> None:
        self.put(f"{line}\n".encode("utf-8", "replace"))

    def put(self, line: bytes) -> None:
        if self.book is not None:
            self.book.keep(without_escapes(line) if ESCAPE in line else line)
            if PROXY not in self.book.shown:
                return
        self.writer.write(line)

    debug = info = warning = error = critical = msg


class _ToOperators(logging.Handler):
    """Writes what libraries log, in the same format."""

    def emit(self, record: logging.LogRecord) -> None:
        log: structlog.stdlib.BoundLogger = structlog.get_logger(record.name)
        level = record.levelname.lower()
        write = getattr(log, level if level in LEVELS else "error")
        write(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)
