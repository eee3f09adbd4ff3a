"""Finished requests: the facts about each one, and the list of the newest.

Owns the facts about a request, their format as llama-swap's row, and the list in memory. `paging`
selects and sorts requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call, rfc3339
from proxy.forwarding.tokens import Tokens
from proxy.http.errors import Problem
from proxy.http.headers import first_values

DEFAULT_KEPT = 1000
LONGEST_ERROR = 500  # characters
LONGEST_PATH = 500
LONGEST_SESSION = 200
UNKNOWN = -1  # llama-swap's value for an unknown number
CANCELLED = 499
FAILED = 400


@attrs.frozen(kw_only=True)
class Finished:
    """A finished request.

    Attributes:
        id: its number among all requests.
        at: when it arrived, in seconds since 1970.
        model: the requested model.
        method: of the request.
        path: without the query.
        status: of the answer. It is 499 if an operator cancelled the request, and 0 if the client
            disconnected before there was an answer.
        content_type: of the answer.
        tokens: the numbers of its tokens.
        seconds: from the request to the end of the answer.
        waited: seconds until its turn; None if it never had a turn.
        first_byte: seconds to the first byte of the answer; None if there was none.
        size: bytes of the answer.
        error: why it failed; empty if it did not.
        request: its id in the log.
        client: the address of the client.
        key: the name of its API key.
        session: the client's id of the session that it belongs to.
    """

    id: int
    at: float
    model: str
    method: str
    path: str
    status: int
    content_type: str
    tokens: Tokens
    seconds: float
    waited: float | None
    first_byte: float | None
    size: int
    error: str = ""
    request: str = ""
    client: str = ""
    key: str = ""
    session: str = ""

    @property
    def speed(self) -> float | None:
        """Generated tokens a second: the model server's number, else llamadoze's measurement."""
        if self.tokens.speed is not None:
            return self.tokens.speed
        if self.first_byte is None or not self.tokens.generated:
            return None
        took = self.seconds - self.first_byte
        return self.tokens.generated / took if took > 0.001 else None

    def row(self, *, has_capture: bool) -> dict[str, Any]:
        """Return llama-swap's row. Facts that llama-swap does not have are in its metadata."""
        tokens = self.tokens
        row: dict[str, Any] = {
            "id": self.id,
            "timestamp": rfc3339(self.at),
            "model": self.model,
            "req_path": self.path,
            "resp_content_type": self.content_type,
            "resp_status_code": self.status,
            "tokens": {
                "cache_tokens": _known(tokens.cached),
                "draft_tokens": _known(tokens.drafted),
                "draft_acc_tokens": _known(tokens.accepted),
                "input_tokens": _known(tokens.prompt),
                "output_tokens": _known(tokens.generated),
                "prompt_per_second": _known(tokens.prompt_speed),
                "tokens_per_second": _known(self.speed),
            },
            "duration_ms": round(self.seconds * 1000),
            "has_capture": has_capture,
        }
        if self.error:
            row["error_msg"] = self.error
        row["metadata"] = self._metadata()
        return row

    def _metadata(self) -> dict[str, str]:
        known = {
            "request_id": self.request,
            "method": self.method,
            "client": self.client,
            "key": self.key,
            "waited_ms": _milliseconds(self.waited),
            "first_byte_ms": _milliseconds(self.first_byte),
            "bytes": str(self.size),
            "session_id": self.session,
        }
        return {name: value for name, value in known.items() if value}


@attrs.define(eq=False, slots=True)
class Ended:
    """A request that has just ended. It becomes a `Finished` only when somebody looks at it.

    Attributes:
        call: the request.
        tokens: the numbers of its tokens.
        now: when it ended, on the system's monotonic clock.
        status: of the answer, or of the problem; 0 if the client disconnected before there was one.
        problem: the problem that the client was told, if any.
        is_whole: whether the client has the whole answer.
        first: the beginning of an answer with an error status.
    """

    call: Call
    tokens: Tokens
    now: float
    status: int
    problem: Problem | None
    is_whole: bool
    first: bytes

    @classmethod
    def of(cls, call: Call, answer: Answer, tokens: Tokens, now: float) -> Ended:
        """Take what is needed. Every request does this, so it does as little as possible."""
        status = answer.outcome
        first = answer.first if status >= FAILED else b""
        return cls(call, tokens, now, status, answer.problem, answer.said_all, first)

    def finished(self, sessions: Sequence[str]) -> Finished:
        """Return the finished request.

        Args:
            sessions: headers that may name a session; the first one with a value counts.
        """
        call = self.call
        kind = first_values(call.response_headers).get(b"content-type", b"").decode("latin-1")
        first = None if call.first_byte is None else call.first_byte - call.began
        return Finished(
            id=call.number,
            at=call.timestamp,
            model=call.model,
            method=call.method,
            path=call.path[:LONGEST_PATH],
            status=self.status or (CANCELLED if call.cancelled else 0),
            content_type=kind,
            tokens=self.tokens,
            seconds=self.now - call.began,
            waited=self._waited,
            first_byte=first,
            size=call.size,
            error=self._error[:LONGEST_ERROR],
            request=call.request_id,
            client=call.client,
            key=call.key,
            session=_session(call, sessions),
        )

    @property
    def _waited(self) -> float | None:
        """The seconds until its turn, or until it was refused."""
        if self.call.waited is None and self.problem is not None:
            return self.now - self.call.began
        return self.call.waited

    @property
    def _error(self) -> str:
        if self.problem is not None:
            return self.problem.message
        if self.call.cancelled:
            return "an operator cancelled it"
        if not self.is_whole:
            return "the client disconnected or was cut off"
        return self.first[:LONGEST_ERROR].decode("utf-8", "replace")


@attrs.define(eq=False)
class Activity:
    """The newest finished requests, in memory.

    Attributes:
        sessions: headers that may name a session.
    """

    sessions: Sequence[str] = ()
    _requests: deque[Ended | Finished] = attrs.field(
        factory=lambda: deque(maxlen=DEFAULT_KEPT), init=False
    )

    def bound(self, most: int) -> None:
        """Keep at most this many from now on, and drop the oldest."""
        if most != self._requests.maxlen:
            self._requests = deque(self._requests, maxlen=most)

    @property
    def most(self) -> int:
        """The number of requests that are kept at most."""
        return self._requests.maxlen or 0

    def __iter__(self) -> Iterator[Finished]:
        for one in tuple(self._requests):
            yield one.finished(self.sessions) if isinstance(one, Ended) else one

    def add(self, request: Ended | Finished) -> None:
        """Keep a request."""
        self._requests.append(request)


def _session(call: Call, names: Sequence[str]) -> str:
    for name in names:
        wanted = name.strip().lower().encode()
        found = next((value for key, value in call.headers if key == wanted and value), b"")
        if found:
            return found.decode("latin-1")[:LONGEST_SESSION]
    return ""


def _known(number: float | None) -> float:
    return UNKNOWN if number is None else round(number, 3)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else str(round(seconds * 1000))
