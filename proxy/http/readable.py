"""Which sockets have something to read: one edge-triggered epoll beside Trio's own.

Owns which task waits for which socket. Trio registers a socket with its epoll at every wait. Here a
socket is registered once, so a wait needs no system call. That saves a tenth of the cost of a piece
of a stream. Trio waits for this epoll as for any file. Without epoll, Trio waits for each socket.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Protocol

import attrs
import structlog
import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    RunVar,
    Task,
    current_task,
    reschedule,
    spawn_system_task,
    wait_readable,
    wait_task_rescheduled,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

HAS_EPOLL = hasattr(select, "epoll")  # Linux
if HAS_EPOLL:
    URGENT = select.EPOLLPRI
    ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    EDGE = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET


class Watch(Protocol):
    """A way to wait for one socket."""

    @property
    def has_told(self) -> bool:
        """Whether an event has come that no task has waited for yet."""

    @property
    def tells(self) -> bool:
        """Whether `call` has any effect."""

    async def wait(self) -> None:
        """Return when something may have come since the last read that emptied the socket.

        Raises:
            trio.ClosedResourceError: llamadoze closed the socket.
        """

    def call(self, back: Callable[[], None] | None) -> None:
        """Call back once when something may have come, if there is epoll. Waiting, or None,
        cancels the callback."""

    def end(self) -> None:
        """Stop watching, since the socket is to be closed. A waiting task gets an error."""


@attrs.define(eq=False)
class Edge:
    """One socket, and its events since the last wait.

    Either one task waits for the socket, or one callback is set, not both.
    """

    _edges: Edges
    _descriptor: int
    _task: Task | None = attrs.field(default=None, init=False)
    _back: Callable[[], None] | None = attrs.field(default=None, init=False)
    has_told: bool = attrs.field(default=False, init=False)
    tells: bool = attrs.field(default=True, init=False)
    _has_ended: bool = attrs.field(default=False, init=False)
    _is_urgent: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    async def wait(self) -> None:
        """Return when something may have come."""
        self._back = None
        if not self._was_told():
            self._task = current_task()
            await wait_task_rescheduled(self._abort)
        if self._is_closed:
            raise trio.ClosedResourceError("it was closed here")

    def call(self, back: Callable[[], None] | None) -> None:
        """Call back once when something may have come."""
        if back is not None and self._was_told():
            back()
        else:
            self._back = back

    def _was_told(self) -> bool:
        """Return whether there was an event, and forget it. An end is never forgotten. Urgent
        data counts twice: once for the bytes before it, once for the bytes behind it."""
        told = self.has_told or self._is_urgent
        if not self.has_told:
            self._is_urgent = False
        self.has_told = self._has_ended
        return told

    def _abort(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    def tell(self, flags: int) -> None:
        """Wake the waiting task or call the callback; without either, remember the event.

        epoll reports an end only once, maybe with the last bytes: after it, no wait blocks. A read
        stops at urgent data (tcp(7)). No event reports the bytes behind it: they are read anyway.
        """
        if flags & ENDED:
            self._has_ended = self.has_told = True
        if flags & URGENT:
            self._is_urgent = True
        if self._task is not None:
            task, self._task = self._task, None
            reschedule(task)
        elif self._back is not None:
            back, self._back = self._back, None
            back()
        else:
            self.has_told = True

    def end(self) -> None:
        """Watch it no more."""
        self._is_closed, self._back = True, None
        self._edges.forget(self._descriptor)
        self.tell(ENDED)


@attrs.define(eq=False)
class Edges:
    """All sockets that are watched in one run of Trio."""

    _epoll: select.epoll = attrs.field(factory=lambda: select.epoll(), init=False)
    _known: dict[int, Edge] = attrs.field(factory=dict, init=False)

    async def run(self) -> None:
        """Pass events on to the sockets until the run ends."""
        with self._epoll:
            while True:
                await wait_readable(self._epoll.fileno())
                for descriptor, flags in self._epoll.poll(0):
                    if edge := self._known.get(descriptor):
                        try:
                            edge.tell(flags)
                        except Exception:  # unhandled in a system task, it would end the daemon
                            log.exception("The callback of a connection failed")

    def watch(self, connection: socket.socket) -> Edge:
        """Start to watch a socket.

        Raises:
            OSError: the system's limit of watched sockets is reached.
        """
        descriptor = connection.fileno()
        self._epoll.register(descriptor, EDGE)
        self._known[descriptor] = edge = Edge(self, descriptor)
        return edge

    def forget(self, descriptor: int) -> None:
        """Stop watching a socket."""
        if self._known.pop(descriptor, None) and not self._epoll.closed:
            self._epoll.unregister(descriptor)


@attrs.frozen
class _ByTrio:
    """One socket that Trio itself waits for."""

    _socket: socket.socket
    has_told: bool = attrs.field(default=True, init=False)
    tells: bool = attrs.field(default=False, init=False)

    async def wait(self) -> None:
        await wait_readable(self._socket)

    def call(self, back: Callable[[], None] | None) -> None:
        """Never call: Trio only wakes a task that waits."""

    def end(self) -> None:
        """Do nothing: the wire informs Trio with `notify_closing`."""


_OF_RUN: RunVar[Edges] = RunVar("edges")


def watch(connection: socket.socket) -> Watch:
    """Start to watch a socket."""
    if not HAS_EPOLL:
        return _ByTrio(connection)
    try:
        edges = _OF_RUN.get()
    except LookupError:
        edges = Edges()
        _OF_RUN.set(edges)
        spawn_system_task(edges.run)
    try:
        return edges.watch(connection)
    except OSError:  # the system's limit is reached (epoll_ctl(2), ENOSPC)
        return _ByTrio(connection)
