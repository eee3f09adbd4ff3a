"""The newest requests with their whole bodies and answers: kept in memory, limited in bytes.

Owns the limit and llama-swap's format. Headers with credentials are left out.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from typing import Any

import attrs

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call, InFlight, without_secrets

MB = 1_000_000
PART_OF_ONE = 4  # a single request may use a quarter of the limit
OF_ITS_HEADERS = 2000  # bytes


@attrs.define(eq=False)
class Captures:
    """The newest requests with their bodies. Above the limit, the oldest lose theirs.

    Attributes:
        most: bytes of all requests together; 0 keeps none.
    """

    most: int = 0
    _kept: deque[Call] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)

    def change(self, megabytes: int, in_flight: InFlight) -> None:
        """Set another limit, for kept requests and for later ones."""
        self.most = max(0, megabytes) * MB
        in_flight.room = self.most // PART_OF_ONE
        self._shrink()

    def add(self, call: Call, answer: Answer) -> None:
        """Keep a finished request, if there was room for its answer."""
        if call.room:
            call.pieces = answer.pieces if call.is_whole else ()
            self._kept.append(call)
            self._size += _size_of(call)
            if self._size > self.most:
                self._shrink()

    def _shrink(self) -> None:
        while self._size > self.most and self._kept:
            call = self._kept.popleft()
            self._size -= _size_of(call)
            call.body, call.pieces, call.room = b"", (), 0

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the requests that are kept."""
        return frozenset(call.number for call in self._kept)

    def find(self, number: int) -> dict[str, Any] | None:
        """Return a request in llama-swap's format; None if it is not kept, or no longer kept."""
        call = next((call for call in self._kept if call.number == number), None)
        if call is None:
            return None
        return {
            "id": number,
            "req_path": call.path,
            "req_headers": without_secrets(call.headers),
            "req_body": b64encode(call.body).decode(),
            "resp_headers": without_secrets(call.response_headers),
            "resp_body": b64encode(b"".join(call.pieces)).decode(),
        }


def _size_of(call: Call) -> int:
    return OF_ITS_HEADERS + len(call.body) + (call.size if call.is_whole else 0)
