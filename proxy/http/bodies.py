"""A request's body on its way in: held in memory, or passed on as it arrives.

Owns the limits of both. What is passed on is asked for when the model server takes it, so that a
fast client is slowed down instead of filling the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Protocol

import attrs
import trio

from proxy.http.errors import BadRequest

Held = bytes | bytearray
"""A body in memory; in parts it comes into a bytearray, so that they need no joining."""

MIB = 1024 * 1024
LEAST_FLOW = 256  # bytes a second that must come of a body, on average
PATIENCE = 10.0  # seconds that it may be behind, while a model is kept for it
PATIENCE_BEFORE = 30.0  # the same, while it only takes room


class Upload(Protocol):
    """A body that is sent on as it arrives."""

    @property
    def length(self) -> int | None:
        """Its size in bytes, if it is known."""

    async def read(self) -> bytes:
        """Return its next part; nothing at its end.

        Raises:
            Unsendable: there is more of it than is accepted.
        """


@attrs.frozen
class Limits:
    """How long bodies may be, in bytes; the names are of the settings in MiB."""

    held: float = inf
    upload: float = inf
    all_held: float = inf

    @classmethod
    def of(cls, max_body: int, max_upload: int, max_bodies: int) -> Limits:
        """Take the configuration's limits; 0 is none."""
        return cls(max_body * MIB or inf, max_upload * MIB or inf, max_bodies * MIB or inf)


def too_long(limit: float, setting: str) -> BadRequest:
    """Return the refusal of a body that is longer than a setting allows."""
    text = f"the body has more than {limit / MIB:g} MiB, which is {setting}"
    return BadRequest(text, status=413)


@attrs.define(eq=False)
class Budget:
    """What bodies may take of the memory, all that are held at once together.

    Attributes:
        limit: in bytes.
        held: bytes that are held now.
    """

    limit: float = inf
    held: int = attrs.field(default=0, init=False)

    def holding(self) -> Holding:
        """Return the count of what one request holds; use it as ``with``."""
        return Holding(self)


@attrs.define(eq=False)
class Holding:
    """What one request holds of the budget."""

    _budget: Budget
    size: int = attrs.field(default=0, init=False)

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held -= self.size

    def add(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            BadRequest: there is no room for them now, or there never is.
        """
        budget = self._budget
        if self.size + size > budget.limit:
            raise too_long(budget.limit, "maxBodies")
        if budget.held + size > budget.limit:
            text = f"other requests' bodies hold {budget.limit / MIB:g} MiB, which is maxBodies"
            raise BadRequest(text, status=503, code="bodies_full", headers={"Retry-After": "1"})
        budget.held += size
        self.size += size


class Source(Protocol):
    """Whoever a body comes from: an exchange.

    Attributes:
        all_read: whether all of it was read.
    """

    all_read: bool

    async def read(self) -> bytes:
        """Return the next part; nothing at the end."""


@attrs.define(eq=False)
class Incoming:
    """The body of a request, on its way in.

    Attributes:
        source: where it comes from.
        length: in bytes, if the client has said it.
    """

    source: Source
    length: int | None
    _flowed: int = attrs.field(default=0, init=False)
    _waited: float = attrs.field(default=0.0, init=False)

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes], source: Source) -> Incoming:
        """Read the body's length from the request's headers."""
        if b"transfer-encoding" in fields:
            return cls(source, None)
        return cls(source, int(fields.get(b"content-length") or 0))

    async def read(self) -> bytes:
        """Return the next part; nothing at the end. Who leaves before that is not heard here: the
        call is cancelled."""
        return await self.source.read()

    async def flow(self, patience: float = PATIENCE) -> bytes:
        """Return the next part of a body that takes room, or keeps a model: it must not only drip.

        Args:
            patience: seconds that it may be behind.

        Raises:
            BadRequest: less has come than `LEAST_FLOW` asks for, since it was first waited for.
        """
        began = trio.current_time()
        left = patience + self._flowed / LEAST_FLOW - self._waited
        with trio.move_on_after(max(0, left)) as scope:
            piece = await self.read()
        self._waited += trio.current_time() - began
        if scope.cancelled_caught:
            text = f"the body came too slowly: less than {LEAST_FLOW} bytes a second"
            raise BadRequest(text, status=408, code="body_too_slow")
        self._flowed += len(piece)
        return piece

    def as_upload(self, limit: float) -> Passed:
        """Return the body to be passed on; one that is too long is refused before it is read.

        Raises:
            BadRequest: the client has said that it is too long.
        """
        if self.length is not None and self.length > limit:
            raise too_long(limit, "maxUpload")
        return Passed(self, limit)


async def hold(incoming: Incoming, limit: float, holding: Holding) -> Held:
    """Return a body as a whole.

    Raises:
        BadRequest: it has more bytes than the limit, or than there is room for.
    """
    if (incoming.length or 0) > limit:
        raise too_long(limit, "maxBody")
    source = incoming.source
    first = await source.read()  # most are whole then; to watch the clock would cost a tenth
    holding.add(len(first))
    if source.all_read and len(first) <= limit:
        return first
    whole = bytearray(first)
    while len(whole) <= limit and (part := await incoming.flow(PATIENCE_BEFORE)):
        holding.add(len(part))
        whole += part
    if len(whole) > limit:
        raise too_long(limit, "maxBody")
    return whole


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
        piece = await self._incoming.flow()
        self._size += len(piece)
        if self._size > self._limit:
            raise too_long(self._limit, "maxUpload")
        return piece
