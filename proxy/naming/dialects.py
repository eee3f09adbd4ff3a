"""How each API says in its event stream that a model loads, and that something failed.

Owns the forms: OpenAI's chat, completions and responses, and Anthropic's messages. All of them are
such that the makers' own clients read them without an error and go on with the model's events.
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
    """What is said of a model that is not ready yet.

    Attributes:
        request: the request's id.
        model: the name that was asked for.
        state: of the model, as ``/running`` has it.
        place: in the queue; 0 if its turn has come.
        text: for people; nothing where there is nothing new.
        ready_in: seconds until it will be ready; None if that is not known.
    """

    request: str
    model: str
    state: str
    place: int
    text: str
    ready_in: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return it for programs."""
        known = {} if self.ready_in is None else {"ready_in": self.ready_in}
        return {"model": self.model, "state": self.state, "queue_position": self.place, **known}


@attrs.frozen
class Dialect:
    """One API's forms.

    Attributes:
        note: how it says that the model loads; None if it has no way.
        failure: how it says that the answer failed.
        named: how it calls an error outside of a stream.
        every: seconds between two notes.
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
    """Return llama-swap's form: the text as if the model were thinking."""
    delta = {"reasoning_content": note.text}  # a role here would be added to the next ones
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
    """Return a chunk without text: what is said must not become a part of the completion."""
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
    """Return a ping: of Anthropic's events it is the only one that may come before a message."""
    return _event({"type": "ping", "llamadoze": note.facts()}, "ping")


def _messages_failure(problem: Problem) -> bytes:
    return _event({"type": "error", "error": _anthropic(problem).error()}, "error")


def _anthropic(problem: Problem) -> Problem:
    """Call an error as Anthropic does."""
    usual = "api_error" if problem.status >= 500 else "invalid_request_error"
    return attrs.evolve(problem, kind=ANTHROPIC.get(problem.status, usual))


def _responses_note(note: Note) -> bytes:
    """Return a comment: OpenAI's client takes no event before the response's own first one."""
    return f": llamadoze {json.dumps(note.facts())}\n\n".encode()


def _responses_failure(problem: Problem) -> bytes:
    """Return an error event; its ``error`` is what makes OpenAI's client raise it."""
    error = problem.error()
    event = {"type": "error", "sequence_number": 0, "param": None, "error": error}
    return _event({**event, "code": error.get("code"), "message": error["message"]}, "error")


PLAIN = Dialect(None, _openai_failure)
CHAT = Dialect(_chat_note, _openai_failure, every=0.75)
COMPLETIONS = Dialect(_completions_note, _openai_failure)
MESSAGES = Dialect(_messages_note, _messages_failure, _anthropic)
RESPONSES = Dialect(_responses_note, _responses_failure)
