"""A websocket's two directions, and when a silent one makes room.

Owns the time of its last byte: a websocket that says nothing would keep those who wait for another
model out for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import attrs
import trio

from proxy.http.bodies import Incoming
from proxy.http.upstream import Response

REASON = b"another model is waited for"
TRY_AGAIN_LATER = 1013  # in IANA's registry of websocket close codes
FINAL_CLOSE = 0x88  # RFC 6455, 5.2: the only frame of its message; it closes
CLOSING = bytes((FINAL_CLOSE, 2 + len(REASON))) + TRY_AGAIN_LATER.to_bytes(2, "big") + REASON


@attrs.frozen
class Courtesy:
    """When a silent websocket makes room.

    Attributes:
        others_wait: returns once others wait for its model's room.
        silence: seconds without a byte, either way, after which it makes room then.
    """

    others_wait: Callable[[], Awaitable[None]]
    silence: float


NOBODY_ELSE = Courtesy(trio.sleep_forever, inf)


@attrs.define(eq=False)
class Tunnel:
    """One websocket, as what its model server says.

    Attributes:
        response: the model server's side.
        incoming: what the client says.
        courtesy: when it makes room for others.
        is_in_the_way: whether it has been silent for too long.
        is_between_pieces: whether all that the model server has said is sent.
        done: whether its end is known before it is read, which it never is.
    """

    response: Response
    incoming: Incoming
    courtesy: Courtesy
    is_in_the_way: bool = attrs.field(default=False, init=False)
    is_between_pieces: bool = attrs.field(default=False, init=False)
    done: bool = attrs.field(default=False, init=False)
    _last: float = attrs.field(factory=trio.current_time, init=False)

    async def read(self) -> bytes:
        """Return what the model server says next; nothing at its end."""
        self.is_between_pieces = True
        piece = await self.response.read()
        self.is_between_pieces = False
        self._last = trio.current_time()
        return piece

    async def to_server(self) -> None:
        """Pass on what the client says, until its end."""
        while piece := await self.incoming.read():
            self._last = trio.current_time()
            await self.response.send(piece)

    async def until_in_the_way(self) -> None:
        """Return when it has been silent for long, and others wait."""
        while True:
            await self.courtesy.others_wait()
            left = self._last + self.courtesy.silence - trio.current_time()
            if left <= 0:
                self.is_in_the_way = True
                return
            await trio.sleep(left)
