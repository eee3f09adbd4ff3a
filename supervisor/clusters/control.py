"""The connection to the launcher of a step: its questions, its answers, and unasked messages.

Owns the form of these messages, and reconnects when the connection breaks. Whether a step lives
that cannot be reached is not decided here.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from math import inf
from typing import Any

import attrs
import trio

from configschema import Entrance
from supervisor.clusters.node.entrance import CONTROL
from supervisor.clusters.tunnel import enter

LONGEST_ANSWER = 10.0  # seconds
LONGEST_LINE = 1 << 22  # bytes
KEPT_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""After these times a dead connection breaks: in seconds, the last in milliseconds."""
NO_ANSWER = object()


class NotReached(Exception):
    """The launcher cannot be asked; the text says why."""


def keep_alive(stream: trio.SocketStream) -> None:
    """Make a connection break soon if its other side is gone."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEPT_ALIVE.items():
        stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@attrs.define(eq=False)
class Control:
    """A launcher, as long as it can be reached.

    Attributes:
        entrance: the entrance of its step.
        on_notice: called when Slurm has told the step to end.
        exited: the server's exit status, once the launcher has reported it; see `has_exited`.
        has_exited: set when the launcher has reported the end.
        has_been_reached: set once the launcher has answered.
        heard_at: when the launcher was last known to be there, on Trio's clock.
    """

    entrance: Entrance
    on_notice: Callable[[], None] = lambda: None
    exited: int | None = attrs.field(default=None, init=False)
    has_exited: trio.Event = attrs.field(factory=trio.Event, init=False)
    has_been_reached: trio.Event = attrs.field(factory=trio.Event, init=False)
    heard_at: float = attrs.field(factory=trio.current_time, init=False)
    _outbox: trio.MemorySendChannel[bytes] | None = attrs.field(default=None, init=False)
    _answers: dict[int, Any] = attrs.field(factory=dict, init=False)
    _waiting: dict[int, trio.Event] = attrs.field(factory=dict, init=False)
    _next: int = attrs.field(default=0, init=False)

    async def run(self) -> str:
        """Connect, and take messages until the connection ends; return why it ended.

        Raises:
            OSError: nothing listens there, or a stranger does.
        """
        with trio.fail_after(LONGEST_ANSWER):
            stream = await enter(self.entrance, CONTROL)
        keep_alive(stream)
        self._outbox, lines = trio.open_memory_channel[bytes](inf)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream, lines)
            nursery.start_soon(self._begin)
            try:
                await self._hear(stream)
            except trio.BrokenResourceError as error:
                return str(error.__cause__ or error)
            finally:
                self._outbox, self.heard_at = None, trio.current_time()
                for event in self._waiting.values():
                    event.set()
                nursery.cancel_scope.cancel()
        return "it was closed"

    async def _write(
        self, stream: trio.SocketStream, lines: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        """Send one question after the other, even if several are asked at the same time."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for line in lines:
                await stream.send_all(line)

    async def _begin(self) -> None:
        """Ask for the state, which includes an end that was missed."""
        try:
            said = await self.ask("state")
        except NotReached:
            return  # `_hear` learns why
        self.has_been_reached.set()
        self.heard_at = trio.current_time()
        if said["status"] is not None:
            self._note_exit(said["status"])
        if said["notice"]:
            self.on_notice()

    async def _hear(self, stream: trio.SocketStream) -> None:
        rest = b""
        async for piece in stream:
            self.heard_at = trio.current_time()
            *lines, rest = (rest + bytes(piece)).split(b"\n")
            if len(rest) > LONGEST_LINE:
                return
            for line in filter(None, lines):
                self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "id" in told:
            if told["id"] in self._waiting:
                self._answers[told["id"]] = told.get("said")
                self._waiting[told["id"]].set()
        elif "exited" in told:
            self._note_exit(told["exited"])
        elif "notice" in told:
            self.on_notice()

    def _note_exit(self, status: int) -> None:
        self.exited = status
        self.has_exited.set()

    async def ask(self, what: str, **more: object) -> Any:  # noqa: ANN401 -- JSON
        """Ask the launcher something.

        Raises:
            NotReached: there is no answer.
        """
        if self._outbox is None:
            raise NotReached("its launcher is not connected")
        self._next += 1
        number = self._next
        event = self._waiting[number] = trio.Event()
        line = json.dumps({"id": number, "what": what, **more}).encode() + b"\n"
        self._outbox.send_nowait(line)
        try:
            with trio.move_on_after(LONGEST_ANSWER):
                await event.wait()
        finally:
            del self._waiting[number]
            answer = self._answers.pop(number, NO_ANSWER)
        if answer is NO_ANSWER:
            raise NotReached(f"its launcher did not answer within {LONGEST_ANSWER:g}s")
        return answer
