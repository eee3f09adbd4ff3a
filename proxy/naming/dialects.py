"""How the event stream of each API tells that a model loads, and that a request failed.

Owns the forms: OpenAI's chat, completions and responses, and Anthropic's messages. OpenAI's and
Anthropic's own clients read these forms without an error and go on with the model's events.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from proxy.http.errors import Problem

ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


@attrs.frozen(kw_only=True)
class Note:
    """A message about a model that is not ready yet.

    Attributes:
        request: the request's id.
        model: the model's name in the request.
        state: the model's state, as in ``/running``.
        place: the place in the queue; 0 if the model's turn has come.
        text: for people; empty if there is no news.
        ready_in: seconds until the model will be ready; None if unknown.
    """

    request: str
    model: str
    state: str
    place: int
    text: str
    ready_in: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the message in a form for programs."""
        known = {} if self.ready_in is None else {"ready_in": self.ready_in}
        return {"model": self.model, "state": self.state, "queue_position": self.place, **known}


@attrs.frozen
class Dialect:
    """One API's forms.

    Attributes:
        note: the form of a message that the model loads; None if the API has none.
        failure: the form of a failure in a stream.
        named: gives an error outside of a stream the API's name for it.
        every: seconds between two messages.
    """

    note: Callable[[Note], bytes] | None
    failure: Callable[[Problem], bytes]
    named: Callable[[Problem], Problem] = lambda problem: problem
    every: float = 5.0


def _event(data: Mapping[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _openai_failure(problem: Problem) -> bytes:
    return _event({"error": problem.error()})


def _chat_note(note: Note) -> bytes:
    """Return llama-swap's form: the text as reasoning of the model."""
    delta = {"reasoning_content": note.text}  # clients would join a role here with later roles
    return _event(
        {
            "id": f"chatcmpl-{note.request}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": note.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
    )


def _completions_note(note: Note) -> bytes:
    """Return a chunk without text, since any text would become a part of the completion."""
    return _event(
        {
            "id": f"cmpl-{note.request}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": note.model,
            "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}],
            "llamadoze": note.facts(),
        }
    )


def _messages_note(note: Note) -> bytes:
    """Return a ping, the only event of Anthropic's that may come before a message."""
    return _event({"type": "ping", "llamadoze": note.facts()}, "ping")


def _messages_failure(problem: Problem) -> bytes:
    return _event({"type": "error", "error": _anthropic(problem).error()}, "error")


def _anthropic(problem: Problem) -> Problem:
    """Give an error Anthropic's type."""
    usual = "api_error" if problem.status >= 500 else "invalid_request_error"
    return attrs.evolve(problem, kind=ANTHROPIC.get(problem.status, usual))


def _responses_note(note: Note) -> bytes:
    """Return a comment, since OpenAI's client accepts no event before the response's first one."""
    return f": llamadoze {json.dumps(note.facts())}\n\n".encode()


def _responses_failure(problem: Problem) -> bytes:
    """Return an error event. OpenAI's client raises an exception because of its ``error``."""
    error = problem.error()
    event = {"type": "error", "sequence_number": 0, "param": None, "error": error}
    return _event({**event, "code": error.get("code"), "message": error["message"]}, "error")


PLAIN = Dialect(None, _openai_failure)
CHAT = Dialect(_chat_note, _openai_failure, every=0.75)
COMPLETIONS = Dialect(_completions_note, _openai_failure)
MESSAGES = Dialect(_messages_note, _messages_failure, _anthropic)
RESPONSES = Dialect(_responses_note, _responses_failure)
