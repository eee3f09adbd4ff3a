"""What the newest requests asked and were answered, whole: kept in memory, bounded in bytes.

Owns the bound and llama-swap's form. What lets somebody in is left out of the headers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import attrs

from proxy.forwarding.inflight import Call, Capture, InFlight, without_secrets

MB = 1_000_000
PART_OF_ONE = 4  # a single request may take a fourth of all


@attrs.frozen(kw_only=True)
class Kept:
    """One request and its answer; the connections that they came by are not held.

    Attributes:
        path: of the request.
        request_headers: without secrets.
        response_headers: the same of the answer.
        capture: the bodies.
        size: bytes of all of it.
    """

    path: str
    request_headers: Mapping[str, str]
    response_headers: Mapping[str, str]
    capture: Capture
    size: int


@attrs.define(eq=False)
class Captures:
    """The newest requests with their bodies.

    Attributes:
        most: bytes of all together; 0 keeps none.
    """

    most: int = 0
    _kept: dict[int, Kept] = attrs.field(factory=dict, init=False)
    _size: int = attrs.field(default=0, init=False)

    def change(self, megabytes: int, in_flight: InFlight) -> None:
        """Let another bound hold, for all that is kept and all that comes."""
        self.most = max(0, megabytes) * MB
        in_flight.room = self.most // PART_OF_ONE
        self._shrink()

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def add(self, call: Call) -> None:
        """Keep a request that has ended, if its bodies were kept."""
        if call.capture is None or not call.number:
            return
        capture = call.capture
        asked, told = map(without_secrets, (call.headers, call.response_headers))
        size = len(capture.request) + len(capture.response)
        size += sum(len(name) + len(value) for name, value in (*asked.items(), *told.items()))
        self._kept[call.number] = Kept(
            path=call.path, request_headers=asked, response_headers=told, capture=capture, size=size
        )
        self._size += size
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self.most and self._kept:
            self._size -= self._kept.pop(next(iter(self._kept))).size

    def find(self, number: int) -> dict[str, Any] | None:
        """Return a request as llama-swap tells of it; None if it is not kept, or not any more."""
        found = self._kept.get(number)
        if found is None:
            return None
        return {
            "id": number,
            "req_path": found.path,
            "req_headers": dict(found.request_headers),
            "req_body": b64encode(found.capture.request).decode(),
            "resp_headers": dict(found.response_headers),
            "resp_body": b64encode(found.capture.response).decode(),
        }
