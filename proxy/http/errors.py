"""Errors as clients see them: a status, and JSON in OpenAI's form as llama-swap sends it.

Owns the status, the type and the code of each error. `dialects` owns the form in which the streams
of each API carry an error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from math import ceil, inf
from typing import Any

import attrs
import trio

from proxy.http.headers import Header
from proxy.http.parsing import ModelDied, Unsendable, UpstreamError
from supervisor import (
    BackingOff,
    CannotSleep,
    ModelFailed,
    NoRoom,
    NotRunning,
    Paused,
    QueueFull,
    Removed,
    StillHeld,
    SupervisorError,
    TooManyRequests,
    UnknownModel,
    Unloaded,
)
from supervisor.scheduling.forecast import Forecast
from supervisor.states.refusals import TooManyLeases

KINDS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "unauthorized"),
    403: ("authentication_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "body_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    499: ("invalid_request_error", "cancelled"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "gateway_timeout"),
    508: ("server_error", "loop_detected"),
}
"""Type and code by status. They are the same as llama-swap's."""
NOT_FOR_CACHES: Header = (b"cache-control", b"no-store")
"""On all answers of our own: one client may read what another may not (RFC 9111, 5.2.2.5)."""
JSON, TEXT, PAGE = "application/json", "text/plain", "text/html"
PARAMETER = re.compile(r";(?!\s*[qQ]\s*=)[^;,]*")  # of a media type, such as its charset; not q
INTERNAL = "internal error in llamadoze: see the daemon's log"
LONGEST_WAIT = 3600  # seconds; a client is never told to wait longer, whatever the forecast says
LONGEST_ACCEPT = 1024  # bytes; a longer Accept header gets JSON
OF_PROGRAMS = (b"", b"*/*", b"application/json", b"application/json, text/event-stream")
"""Values of Accept for which JSON is the best form, or as good as any."""


class BadRequest(Unsendable):
    """The client sent a request that cannot be served. It must send a different one."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}
        super().__init__(message)


def needs_restart(what: str, error: ImportError) -> BadRequest:
    """Return the error for a module that is first needed now and can no longer be loaded.

    This happens if another version was installed while this process runs.
    """
    return BadRequest(f"{what} cannot be read until you restart llamadoze: {error}", 503)


@attrs.frozen
class Problem:
    """One error response."""

    status: int
    message: str
    code: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    param: str | None = None
    kind: str | None = None
    given: Mapping[str, Any] | None = None

    def error(self) -> Mapping[str, Any]:
        """Return the object that OpenAI's clients turn into an exception.

        If a model server's own error is given, return that.
        """
        if self.given is not None:
            return self.given
        kind, code = KINDS.get(
            self.status,
            ("server_error", "internal_error") if self.status >= 500 else KINDS[400],
        )
        code = self.code or code
        return {
            "message": self.message,
            "type": self.kind or kind,
            "param": self.param,
            "code": code,
        }

    def body(self) -> bytes:
        """Return the error as JSON. Anthropic's clients recognise an error by ``type``."""
        return json.dumps({"type": "error", "src": "llamadoze", "error": self.error()}).encode()

    def fields(self) -> list[Header]:
        """Return the headers that go with the body."""
        extra = [_header(name, value) for name, value in self.headers.items()]
        return [(b"content-type", b"application/json"), NOT_FOR_CACHES, *extra]

    def said_to(self, accept: bytes) -> tuple[list[Header], bytes]:
        """Return headers and body in the form that the client prefers: JSON, text, or HTML.

        With status 429, every client gets JSON, as from llama-swap.
        """
        fields, body = self.fields(), self.body()
        text = f"llamadoze: {self.message}"
        liked = JSON if self.status == 429 else _liked_best(accept)
        if liked == JSON:
            return fields, body
        body = _page(self.status, text) if liked == PAGE else text.encode(errors="replace")
        return [(b"content-type", f"{liked}; charset=utf-8".encode()), *fields[1:]], body


async def ready_to_say(accept: bytes) -> None:
    """Load the module that chooses a form, in a thread. Only errors to browsers need it."""
    if accept not in OF_PROGRAMS and "werkzeug.http" not in sys.modules:
        # If no thread is left, the import blocks every task later. Or its files are gone.
        with suppress(RuntimeError, ImportError):
            await trio.to_thread.run_sync(import_module, "werkzeug.http")


def _liked_best(accept: bytes) -> str:
    """Return the form that a client prefers to JSON, or JSON by default (RFC 9110, 12.5.1)."""
    if accept in OF_PROGRAMS or len(accept) > LONGEST_ACCEPT:
        return JSON
    try:
        from werkzeug.datastructures import MIMEAccept  # loaded by `ready_to_say`
        from werkzeug.http import parse_accept_header
    except ImportError:  # another version was installed while this process runs
        return JSON

    bare = PARAMETER.sub("", accept.decode("latin-1"))
    wanted = parse_accept_header(bare, MIMEAccept)
    return max((JSON, TEXT, PAGE), key=lambda kind: wanted.quality(kind))


def _header(name: str, value: str) -> Header:
    return name.lower().encode(), value.encode("latin-1", "replace")


def _page(status: int, text: str) -> bytes:
    import html  # it loads a large table of character names

    said = html.escape(text)
    page = f"<!doctype html><title>{status}</title><h1>{status}</h1><p>{said}</p>\n"
    return page.encode(errors="replace")


def unforeseen(_: str) -> Forecast | None:
    """Return no forecast for any model."""
    return None


def problem_of(
    error: Exception, ready_in: Callable[[str], Forecast | None] = unforeseen
) -> Problem:
    """Return the problem that tells a client of an error.

    Args:
        error: one of `EXPECTED`, or a fault of the program.
        ready_in: returns when a model will be ready, if that is known.
    """
    message = str(error)
    match error:
        case BadRequest():
            return Problem(error.status, message, error.code, error.headers, error.param)
        case UnknownModel() | Removed():
            return Problem(404, message, param="model")
        case TooManyRequests():
            return Problem(429, message, "concurrency_limit", {"Retry-After": "1"})
        case QueueFull():
            return Problem(503, message, "queue_full", _again(ready_in(error.model), 5))
        case BackingOff():
            ready = ready_in(error.model)
            wait = max(error.wait, ready.seconds) if ready else error.wait
            return Problem(503, message, "model_backing_off", _again(None, wait))
        case NoRoom():
            wait = min(error.wait, LONGEST_WAIT) if error.wait < inf else 30
            return Problem(503, message, "no_room", _again(None, wait))
        case TooManyLeases():
            return Problem(429, message, "too_many_leases", {"Retry-After": "30"})
        case CannotSleep() | NotRunning():
            return Problem(409, message)
        case ModelFailed() | ModelDied():
            return Problem(502, message, "model_failed")
        case UpstreamError():
            return Problem(502, message)
        case StillHeld():
            return Problem(503, message, "memory_held", {"Retry-After": "30"})
        case Paused():
            return Problem(503, message, "paused", {"Retry-After": "30"})
        case Unloaded():
            return Problem(500, message, "model_unloaded")
        case _:
            return Problem(500, INTERNAL)


def _again(ready: Forecast | None, otherwise: float) -> Mapping[str, str]:
    """Tell the client when to retry: when the model will be ready, if that is known."""
    known = otherwise if ready is None else ready.seconds
    return {"Retry-After": str(max(1, ceil(min(known, LONGEST_WAIT))))}


EXPECTED = (BadRequest, SupervisorError, UpstreamError)
"""The errors that `problem_of` explains to clients. Any other is a fault of the program."""
