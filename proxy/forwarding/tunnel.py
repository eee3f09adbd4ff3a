"""The two directions of a websocket, and when a silent websocket makes room.

Owns the time of the last byte. Without a limit, a silent websocket could keep out the requests for
another model forever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import attrs
import trio

from proxy.http.bodies import Incoming
from proxy.http.upstream import Response

REASON = b"requests for another model wait"
TRY_AGAIN_LATER = 1013  # in IANA's registry of websocket close codes
FINAL_CLOSE = 0x88  # RFC 6455, 5.2: a close frame, the only frame of its message
CLOSING = bytes((FINAL_CLOSE, 2 + len(REASON))) + TRY_AGAIN_LATER.to_bytes(2, "big") + REASON


@attrs.frozen
class Courtesy:
    """When a silent websocket makes room.

    Attributes:
        others_wait: returns once requests for another model wait for the room of its model.
        silence: seconds without a byte in either direction, after which it then makes room.
    """

    others_wait: Callable[[], Awaitable[None]]
    silence: float


NOBODY_ELSE = Courtesy(trio.sleep_forever, inf)


@attrs.define(eq=False)
class Tunnel:
    """One websocket, read like an answer of its model server.

    Attributes:
        response: the model server's side.
        incoming: the client's side.
        courtesy: when the websocket makes room.
        is_in_the_way: whether the websocket was silent for too long while other requests waited.
        is_between_pieces: whether all bytes from the model server were sent on.
        done: whether the end is known before it is read: never.
    """

    response: Response
    incoming: Incoming
    courtesy: Courtesy
    is_in_the_way: bool = attrs.field(default=False, init=False)
    is_between_pieces: bool = attrs.field(default=False, init=False)
    done: bool = attrs.field(default=False, init=False)
    _last: float = attrs.field(factory=trio.current_time, init=False)

    async def read(self) -> bytes:
        """Return the next bytes from the model server; nothing at the end."""
        self.is_between_pieces = True
        piece = await self.response.read()
        self.is_between_pieces = False
        self._last = trio.current_time()
        return piece

    async def to_server(self) -> None:
        """Pass the client's bytes on, until the end."""
        while piece := await self.incoming.read():
            self._last = trio.current_time()
            await self.response.send(piece)

    async def until_in_the_way(self) -> None:
        """Return when the websocket has been silent for too long and other requests wait."""
        while True:
            await self.courtesy.others_wait()
            left = self._last + self.courtesy.silence - trio.current_time()
            if left <= 0:
                self.is_in_the_way = True
                return
            await trio.sleep(left)
