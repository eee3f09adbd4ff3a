"""A request's body on its way in: held in memory, or passed on as it arrives.

Owns the limits of both. What is passed on is asked for when the model server takes it, so that a
fast client is slowed down instead of filling the memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import attrs

from proxy.http.errors import BadRequest
from proxy.http.headers import Header, value_of

Receive = Callable[[], Awaitable[Any]]

MIB = 1024 * 1024


@attrs.frozen
class Limits:
    """How long bodies may be, in bytes; the names are of the settings in MiB."""

    held: float = inf
    upload: float = inf

    @classmethod
    def of(cls, max_body: int, max_upload: int) -> Limits:
        """Take the configuration's limits; 0 is none."""
        return cls(max_body * MIB or inf, max_upload * MIB or inf)


def too_long(limit: float, setting: str) -> BadRequest:
    """Return the refusal of a body that is longer than a setting allows."""
    text = f"the body has more than {limit / MIB:g} MiB, which is {setting}"
    return BadRequest(text, status=413)


@attrs.define(eq=False)
class Incoming:
    """The body of a request, as an ASGI server hands it on.

    Attributes:
        length: in bytes, if the client has said it.
        ended: whether all of it was read.
    """

    _receive: Receive
    length: int | None
    ended: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, headers: list[Header], receive: Receive) -> Incoming:
        """Read the body's length from the request's headers."""
        framed = value_of(headers, b"transfer-encoding")
        length = value_of(headers, b"content-length")
        return cls(receive, None if framed else int(length or 0))

    async def read(self) -> bytes:
        """Return the next part; nothing at the end. Who leaves before that is not heard here: the
        call is cancelled."""
        while not self.ended:
            message = await self._receive()
            self.ended = not message.get("more_body", False)
            if body := message["body"]:
                return bytes(body)
        return b""

    def as_upload(self, limit: float) -> Passed:
        """Return the body to be passed on; one that is too long is refused before it is read.

        Raises:
            BadRequest: the client has said that it is too long.
        """
        if self.length is not None and self.length > limit:
            raise too_long(limit, "maxUpload")
        return Passed(self, limit)


async def hold(incoming: Incoming, limit: float) -> bytes:
    """Return a body as a whole.

    Raises:
        BadRequest: it has more bytes than the limit.
    """
    if (incoming.length or 0) > limit:
        raise too_long(limit, "maxBody")
    first = await incoming.read()
    if incoming.ended and len(first) <= limit:
        return first
    parts, size = [first], len(first)
    while size <= limit and (part := await incoming.read()):
        parts.append(part)
        size += len(part)
    if size > limit:
        raise too_long(limit, "maxBody")
    return b"".join(parts)


@attrs.define(eq=False)
class Passed:
    """A body that is passed on as it arrives."""

    _incoming: Incoming
    _limit: float
    _size: int = attrs.field(default=0, init=False)

    @property
    def length(self) -> int | None:
        """Its size, if the client has said it."""
        return self._incoming.length

    async def read(self) -> bytes:
        """Return its next part; nothing at its end.

        Raises:
            BadRequest: there is more than the limit.
        """
        piece = await self._incoming.read()
        self._size += len(piece)
        if self._size > self._limit:
            raise too_long(self._limit, "maxUpload")
        return piece
