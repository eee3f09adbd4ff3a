"""Errors as clients see them: a status and OpenAI's JSON form, made in this one place."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs

from proxy.parsing import UpstreamError
from supervisor import (
    CannotSleep,
    ModelFailed,
    NotRunning,
    Paused,
    QueueFull,
    Removed,
    SupervisorError,
    TooManyRequests,
    UnknownModel,
    Unloaded,
)


class BadRequest(Exception):
    """The client sent what cannot be routed: it must send something else."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


@attrs.frozen
class Problem:
    """One error response."""

    status: int
    message: str
    code: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def body(self) -> bytes:
        """Return the JSON that OpenAI's clients turn into an exception."""
        error = {
            "message": self.message,
            "type": _type_of(self.status),
            "param": "model" if self.code == "model_not_found" else None,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    def event(self) -> bytes:
        """Return the same as a server-sent event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


def problem_of(error: Exception) -> Problem:
    """Say an error to a client."""
    message = str(error)
    match error:
        case BadRequest():
            return Problem(error.status, message, error.code)
        case UnknownModel():
            return Problem(404, message, "model_not_found")
        case TooManyRequests():
            return Problem(429, message, "concurrency_limit", {"Retry-After": "1"})
        case QueueFull():
            return Problem(503, message, "queue_full", {"Retry-After": "5"})
        case CannotSleep() | NotRunning():
            return Problem(409, message, "conflict")
        case ModelFailed():
            return Problem(502, message, "model_failed")
        case UpstreamError():
            return Problem(502, message, "bad_gateway")
        case Removed():
            return Problem(404, message, "model_not_found")
        case Paused():
            return Problem(503, message, "paused", {"Retry-After": "30"})
        case Unloaded():
            return Problem(503, message, "model_unloaded")
        case _:
            return Problem(500, "internal error; the daemon's log has more", "internal_error")


EXPECTED = (BadRequest, SupervisorError, UpstreamError)
"""What `problem_of` has words for; anything else is a fault of the program."""


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
