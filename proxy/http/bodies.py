"""A request's body on its way in: held in memory, or passed on as it arrives.

Owns the limits of both. A body that is passed on is only read as fast as the model server takes it.
A fast client is therefore slowed down and does not fill the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Protocol

import attrs
import trio

from proxy.http.errors import BadRequest

Held = bytes | bytearray
"""A body in memory. A body that comes in parts is a bytearray, so that nothing must be joined."""

MIB = 1024 * 1024
LEAST_FLOW = 256  # bytes of a body that must arrive each second, on average
PATIENCE = 10.0  # seconds that a body may be behind, while a model is kept for it
PATIENCE_BEFORE = 30.0  # the same, while the body only takes memory


class Upload(Protocol):
    """A body that is sent on as it arrives."""

    @property
    def length(self) -> int | None:
        """The size in bytes, if it is known."""

    async def read(self) -> bytes:
        """Return the next part; nothing at the end.

        Raises:
            Unsendable: the body is longer than the limit.
        """


@attrs.frozen
class Limits:
    """How long bodies may be, in bytes: one held body, one upload, and all held bodies."""

    held: float = inf
    upload: float = inf
    all_held: float = inf

    @classmethod
    def of(cls, max_body: int, max_upload: int, max_bodies: int) -> Limits:
        """Take the configuration's limits in MiB; 0 means no limit."""
        return cls(max_body * MIB or inf, max_upload * MIB or inf, max_bodies * MIB or inf)


def too_long(limit: float, setting: str) -> BadRequest:
    """Return the refusal of a body that is longer than a setting allows."""
    text = f"the request body is larger than {limit / MIB:g} MiB, the limit set by {setting}"
    return BadRequest(text, status=413)


@attrs.define(eq=False)
class Budget:
    """The memory that all held bodies together may take.

    Attributes:
        limit: in bytes.
        held: bytes that are held now.
    """

    limit: float = inf
    held: int = attrs.field(default=0, init=False)

    def holding(self) -> Holding:
        """Return the share of one request. Use it in a ``with`` statement."""
        return Holding(self)


@attrs.define(eq=False)
class Holding:
    """The share of the budget that one request takes."""

    _budget: Budget
    size: int = attrs.field(default=0, init=False)

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held -= self.size

    def add(self, size: int) -> None:
        """Take `size` more bytes of the budget.

        Raises:
            BadRequest: the budget has no room for the bytes now, or never has.
        """
        budget = self._budget
        if self.size + size > budget.limit:
            raise too_long(budget.limit, "maxBodies")
        if budget.held + size > budget.limit:
            text = (
                f"the bodies of other requests take all {budget.limit / MIB:g} MiB of memory that "
                "maxBodies allows: retry later"
            )
            raise BadRequest(text, status=503, code="bodies_full", headers={"Retry-After": "1"})
        budget.held += size
        self.size += size


class Source(Protocol):
    """Where a body comes from: an exchange.

    Attributes:
        all_read: whether all of the body was read.
    """

    all_read: bool

    async def read(self) -> bytes:
        """Return the next part; nothing at the end."""


@attrs.define(eq=False)
class Incoming:
    """The body of a request, on its way in.

    Attributes:
        source: where the body comes from.
        length: in bytes, if the client has stated it.
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
        """Return the next part; nothing at the end. If the client disconnects before the end, the
        call is cancelled."""
        return await self.source.read()

    async def flow(self, patience: float = PATIENCE) -> bytes:
        """Return the next part of a body that takes memory or keeps a model. It must not be slow.

        Args:
            patience: seconds that the body may be behind.

        Raises:
            BadRequest: the body has come more slowly than `LEAST_FLOW` while tasks waited for it.
        """
        began = trio.current_time()
        left = patience + self._flowed / LEAST_FLOW - self._waited
        with trio.move_on_after(max(0, left)) as scope:
            piece = await self.read()
        self._waited += trio.current_time() - began
        if scope.cancelled_caught:
            text = f"the request body came too slowly: less than {LEAST_FLOW} bytes a second"
            raise BadRequest(text, status=408, code="body_too_slow")
        self._flowed += len(piece)
        return piece

    def as_upload(self, limit: float) -> Passed:
        """Return the body to be passed on. A body that is too long is refused before it is read.

        Raises:
            BadRequest: the length that the client has stated is above the limit.
        """
        if self.length is not None and self.length > limit:
            raise too_long(limit, "maxUpload")
        return Passed(self, limit)


async def hold(incoming: Incoming, limit: float, holding: Holding) -> Held:
    """Return a body as a whole.

    Raises:
        BadRequest: the body has more bytes than the limit, or than there is room for.
    """
    if (incoming.length or 0) > limit:
        raise too_long(limit, "maxBody")
    source = incoming.source
    first = await source.read()  # mostly the whole body; watching the clock would cost a tenth
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
        """The size, if the client has stated it."""
        return self._incoming.length

    async def read(self) -> bytes:
        """Return the next part; nothing at the end.

        Raises:
            BadRequest: the body is longer than the limit.
        """
        piece = await self._incoming.flow()
        self._size += len(piece)
        if self._size > self._limit:
            raise too_long(self._limit, "maxUpload")
        return piece
