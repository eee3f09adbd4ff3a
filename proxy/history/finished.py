"""The requests that have ended: what each asked, took and got; the newest are kept.

Owns the facts of one request, their form as llama-swap's row, and the list in memory. Which of them
are asked for, and in what order, is `paging`'s.
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
UNKNOWN = -1  # llama-swap's word for a number that nobody knows
CANCELLED = 499
FAILED = 400


@attrs.frozen(kw_only=True)
class Finished:
    """One request.

    Attributes:
        id: its number among all.
        at: when it came, in seconds since 1970.
        model: that was asked.
        method: of the request.
        path: without the query.
        status: of the answer; 499 if it was cancelled, 0 if the client left before there was one.
        content_type: of the answer.
        tokens: that it took.
        seconds: from the request to the end of the answer.
        waited: seconds until the model could be asked; None if that was never so.
        first_byte: seconds until the answer began; None if it never did.
        size: bytes of the answer.
        error: why it failed; nothing if it did not.
        request: its id in the log.
        client: the address that it came from.
        key: the name of the API key that it showed.
        session: what its client calls the session that it belongs to.
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
        """Tokens a second in which the answer was made; as the server says, or as was seen."""
        if self.tokens.speed is not None:
            return self.tokens.speed
        if self.first_byte is None or not self.tokens.generated:
            return None
        took = self.seconds - self.first_byte
        return self.tokens.generated / took if took > 0.001 else None

    def row(self, *, has_capture: bool) -> dict[str, Any]:
        """Return it as llama-swap tells of it, with what it has no word for in the metadata."""
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
    """A request that has just ended: all that a finished one is made of when somebody looks.

    Attributes:
        call: the request.
        tokens: that it took.
        now: when it ended, on the system's monotonic clock.
        status: as the client would have to see it; 0 if it left before there was one.
        problem: what it was told of.
        is_whole: whether the client has all there is.
        first: the beginning of an answer that tells of a failure.
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
        """Take what is needed; this is done for every request, so it does as little as can be."""
        status = answer.outcome
        first = answer.first if status >= FAILED else b""
        return cls(call, tokens, now, status, answer.problem, answer.said_all, first)

    def finished(self, sessions: Sequence[str]) -> Finished:
        """Return it as it is looked at.

        Args:
            sessions: headers that name a session, the first that says something counts.
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
        """The seconds until it could be asked, or until it was sent away."""
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
    """The newest requests, in memory.

    Attributes:
        sessions: headers that name a session.
    """

    sessions: Sequence[str] = ()
    _requests: deque[Ended | Finished] = attrs.field(
        factory=lambda: deque(maxlen=DEFAULT_KEPT), init=False
    )

    def bound(self, most: int) -> None:
        """Keep so many from now on; the oldest go."""
        if most != self._requests.maxlen:
            self._requests = deque(self._requests, maxlen=most)

    @property
    def most(self) -> int:
        """How many are kept."""
        return self._requests.maxlen or 0

    def __iter__(self) -> Iterator[Finished]:
        for one in tuple(self._requests):
            yield one.finished(self.sessions) if isinstance(one, Ended) else one

    def add(self, request: Ended | Finished) -> None:
        """Keep one more."""
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
