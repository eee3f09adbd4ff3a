"""The requests that are being forwarded now: what is known of each, and a way to cancel one.

Owns the list, and reports its changes. Other modules decide what happens to a request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from proxy.http.headers import CREDENTIALS, PROTOCOLS, Header
from supervisor.states.causes import Why

MOST_CAPTURED = 32  # requests in flight whose bodies are kept
DECIMAL = re.compile("[0-9]{1,15}")
HIDDEN = {*CREDENTIALS, PROTOCOLS, b"cookie", b"set-cookie", b"proxy-authorization"}


@attrs.define(eq=False)
class Call:
    """One request, as the log, the metrics and ``/api/events`` see it.

    Attributes:
        request_id: the client's id for the request, or llamadoze's.
        method: as it was sent.
        path: without the query.
        headers: the request's headers.
        client: the client's address.
        key: the name of the API key in the request.
        began: on the system's monotonic clock, as `first_byte`.
        timestamp: the same moment, in seconds since 1970.
        model: the model that answers; until that is known, the name in the request.
        known: whether `model` is a model of this daemon or of a peer, and not any text.
        first_byte: when the answer's first byte was sent on; None before.
        waited: seconds until the request could go to the model; None before.
        size: bytes of the answer's body so far.
        cancel: ends the request, once its model is known.
        cancelled: whether the request was cancelled.
        number: the request's number in order of arrival.
        room: bytes of the request and of the answer that are kept; 0 keeps none, or no more.
        body: the request's body, if it is kept.
        pieces: the answer's pieces, if the answer is kept and has ended.
        is_whole: whether the answer is short enough to be kept.
    """

    request_id: str
    method: str
    path: str
    headers: Sequence[Header]
    client: str
    key: str = ""
    began: float = attrs.field(factory=time.monotonic)
    timestamp: float = attrs.field(factory=time.time)
    model: str = ""
    known: bool = False
    first_byte: float | None = None
    waited: float | None = None
    size: int = 0
    response_headers: Sequence[Header] = ()
    cancel: Callable[[], None] = lambda: None
    cancelled: bool = False
    number: int = 0
    room: int = 0
    body: bytes | bytearray = b""
    pieces: Sequence[bytes] = ()
    is_whole: bool = True

    @property
    def why(self) -> Why:
        """The kind of asker."""
        return Why.REQUEST

    @property
    def request(self) -> str:
        """The request's id, as the id of an asker."""
        return self.request_id

    def entry(self) -> dict[str, Any]:
        """Return the request in the form of llama-swap's list."""
        elapsed = time.monotonic() - self.began
        waited = {} if self.waited is None else {"waited_s": str(round(self.waited, 3))}
        return {
            "id": str(self.number),
            "timestamp": rfc3339(self.timestamp),
            "model": self.model,
            "req_path": self.path,
            "method": self.method,
            "req_headers": without_secrets(self.headers),
            "remote_ip": self.client,
            "resp_headers": without_secrets(self.response_headers),
            "resp_bytes": self.size,
            "elapsed_ms": round(elapsed * 1000),
            "metadata": {"request_id": self.request_id, **waited},
        }


def _nothing() -> None:
    """Do nothing: the request has ended."""


def rfc3339(seconds: float) -> str:
    """Return a time in seconds since 1970 as text (RFC 3339)."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def without_secrets(headers: Sequence[Header]) -> dict[str, str]:
    """Return headers without keys, cookies and other credentials."""
    return {
        name.decode("latin-1"): "[redacted]" if name in HIDDEN else value.decode("latin-1")
        for name, value in headers
    }


@attrs.define(eq=False)
class InFlight:
    """The requests whose model is known and that have not ended.

    Attributes:
        on_change: called with ``upsert`` or ``remove`` and the request; None if not needed.
        room: bytes of one request and its answer that are kept; 0 keeps none.
    """

    room: int = 0
    on_change: Callable[[str, Call], None] | None = None
    _calls: dict[int, Call] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)

    def add(self, call: Call) -> None:
        """List a request."""
        self._count += 1
        call.number = self._count
        call.room = self.room if len(self._calls) <= MOST_CAPTURED else 0
        self._calls[call.number] = call
        if self.on_change is not None:
            self.on_change("upsert", call)

    def begin_after(self, number: int) -> None:
        """Continue the numbers after the last number of an earlier daemon."""
        self._count = max(self._count, number)

    def remove(self, call: Call) -> None:
        """Remove a request from the list, if it is there, and its reference to the connection."""
        call.cancel = _nothing
        if self._calls.pop(call.number, None) and self.on_change is not None:
            self.on_change("remove", call)

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls.values()))

    def __len__(self) -> int:
        return len(self._calls)

    def cancel(self, number: str) -> bool:
        """Cancel a request. Return whether there was one with this number."""
        call = self._calls.get(int(number)) if DECIMAL.fullmatch(number) else None
        if call is not None:
            call.cancelled = True
            call.cancel()
        return call is not None
