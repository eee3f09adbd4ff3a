"""A connected socket, read and written without a turn of the scheduler if none is needed.

Owns one socket. trio's streams take a turn for every piece, ready or not. With hundreds of streams,
these turns are most of the cost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable
from math import inf
from typing import Protocol

import attrs
import trio
from trio.lowlevel import checkpoint, notify_closing, wait_writable

from proxy.http.readable import Watch, watch

READ_SIZE = 65536
UNSENT = 16384  # bytes that the system holds and has not sent yet
# All reads use this buffer, one after the other. Otherwise each read would allocate as much and
# free most of it, which would fragment the heap of a busy daemon.
_ARRIVED = memoryview(bytearray(READ_SIZE))
CLOSED = (7, 8)  # TCP_CLOSE and TCP_CLOSE_WAIT of Linux
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: reset the connection without waiting
TURNS = 64  # reads and writes without waiting, until other tasks get a turn anyway
READS = 8  # the same, if a read takes as much as it can


AnySocket = socket.socket | trio.socket.SocketType


class Wire(Protocol):
    """A connection that sends and receives bytes.

    Attributes:
        tells: whether `call` works: the wire can report arrivals before they are read.
    """

    tells: bool

    @property
    def connection(self) -> AnySocket:
        """The socket, for questions and options to the system; not for reading or writing."""

    async def receive(self, limit: float = inf) -> bytes:
        """Wait until bytes have arrived, and return them; nothing at the end.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: llamadoze closed the connection.
            trio.TooSlowError: nothing has arrived for `limit` seconds.
        """

    async def send(self, data: bytes | bytearray) -> None:
        """Send all of the data.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: llamadoze closed the connection.
        """

    def call(self, back: Callable[[], None] | None) -> None:
        """If `tells`, call back once when something has arrived. Reading, or None, cancels that."""

    def is_quiet(self) -> bool:
        """Whether nothing has arrived, not even the end."""

    def has_left(self) -> bool:
        """Whether the other side has closed, even if bytes that it sent were not read yet.

        If the system does not reveal that, reading all bytes will.
        """

    def end_sending(self) -> None:
        """Tell the other side that nothing more comes, if that is possible."""

    def reset(self) -> None:
        """Close the connection so that the other side gets an error instead of an end."""

    def close(self) -> None:
        """Close the connection at once. A task that reads or writes gets an error."""


@attrs.define(eq=False)
class Plain:
    """A TCP connection."""

    _socket: socket.socket
    _patience: float = inf
    _turns: int = attrs.field(default=0, init=False)
    _drained: bool = attrs.field(default=False, init=False)
    _look: select.poll | None = attrs.field(default=None, init=False)
    _watch: Watch = attrs.field(init=False)
    _back: Callable[[], None] | None = attrs.field(default=None, init=False)
    tells: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._watch = watch(self._socket)
        self.tells = self._watch.tells

    @classmethod
    def connected(cls, plain: socket.socket, patience: float = inf) -> Plain:
        """Take a connection that has just been made. `patience` is as in `of`.

        As in trio's own class, small pieces are sent at once, and the system buffers few bytes that
        are not sent yet. Otherwise a client that reads slowly would seem not to read at all.
        """
        plain.setblocking(False)
        if plain.family == socket.AF_UNIX:
            return cls(plain, patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        return cls(plain, patience)

    @classmethod
    def of(cls, stream: trio.SocketStream, patience: float = inf) -> Plain:
        """Take a connection over from trio's own class.

        Args:
            stream: the stream that has the connection.
            patience: seconds for which the other side may read nothing while bytes wait for it.
        """
        plain = socket.socket(fileno=stream.socket.detach())
        plain.setblocking(False)
        return cls(plain, patience)

    @property
    def connection(self) -> AnySocket:
        """The socket."""
        return self._socket

    async def receive(self, limit: float = inf) -> bytes:
        """Return what has arrived."""
        while True:
            if self._drained:
                if limit == inf:
                    await self._watch.wait()
                else:
                    with trio.fail_after(limit):
                        await self._watch.wait()
            else:
                self._turns += 1
                if not self._turns % READS:  # before the read, so that cancelling loses no bytes
                    await checkpoint()
            try:
                size = self._socket.recv_into(_ARRIVED)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = size < READ_SIZE  # otherwise more is probably there
            return bytes(_ARRIVED[:size])

    async def send(self, data: bytes | bytearray) -> None:
        """Send all of it."""
        self._turns += 1
        if not self._turns % TURNS:  # before sending: after the end of an answer, nothing waits
            await checkpoint()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            with trio.move_on_after(self._patience) as scope:
                await wait_writable(self._socket)
            if scope.cancelled_caught:
                raise TimeoutError(errno.ETIMEDOUT, "the other side does not read")
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._socket.send(rest) :]

    def call(self, back: Callable[[], None] | None) -> None:
        """Call back once when something has arrived."""
        self._back = back
        if back is None:
            self._watch.call(None)
        elif self._drained:
            self._watch.call(self._call_if_readable)
        else:
            back()

    def _call_if_readable(self) -> None:
        """Call back, unless the bytes behind this event were read already."""
        if self._back is not None and (self._watch.has_told or self._is_readable()):
            self._drained = False  # no other event will report these bytes
            self._back()
        else:
            self._watch.call(self._call_if_readable)

    def is_quiet(self) -> bool:
        """Look without taking anything."""
        return not self._is_readable()

    def _is_readable(self) -> bool:
        if self._look is None:
            self._look = select.poll()
            self._look.register(self._socket, select.POLLIN)
        return bool(self._look.poll(0))

    def has_left(self) -> bool:
        """Ask the system."""
        return _has_left(self._socket)

    def end_sending(self) -> None:
        """Tell the other side that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Let the system send RST instead of FIN."""
        _reset_at_end(self._socket)
        self.close()

    def close(self) -> None:
        """Close it at once."""
        if self._socket.fileno() >= 0:
            self._watch.end()
            notify_closing(self._socket)
            self._socket.close()


@attrs.define(eq=False)
class Encrypted:
    """A TLS connection, over trio's stream."""

    _stream: trio.SSLStream[trio.SocketStream]
    _patience: float = inf
    tells: bool = attrs.field(default=False, init=False)  # TLS may buffer what it has read already

    @property
    def connection(self) -> AnySocket:
        """The socket below."""
        return self._stream.transport_stream.socket

    async def receive(self, limit: float = inf) -> bytes:
        """Return what has arrived."""
        try:
            with trio.fail_after(limit):
                return bytes(await self._stream.receive_some(READ_SIZE))
        except trio.BrokenResourceError as error:
            raise _of_system(error) from error

    async def send(self, data: bytes | bytearray) -> None:
        """Send all of it."""
        try:
            with trio.fail_after(self._patience):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            raise TimeoutError(errno.ETIMEDOUT, "the other side does not read") from None
        except trio.BrokenResourceError as error:
            raise _of_system(error) from error

    def call(self, back: Callable[[], None] | None) -> None:
        """Never call, since `tells` is False."""

    def is_quiet(self) -> bool:
        """Look without taking anything."""
        return not self._stream.transport_stream.socket.is_readable()

    def has_left(self) -> bool:
        """Ask the system."""
        return _has_left(self.connection)

    def end_sending(self) -> None:
        """End it at the system only: TLS's close would have to wait for an answer."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Let the system send RST instead of FIN."""
        _reset_at_end(self.connection)
        self.close()

    def close(self) -> None:
        """Close the connection at once, without TLS's closing message."""
        self.connection.close()


def words_of(error: OSError) -> str:
    """Return the system's text for an error, as the end of a sentence."""
    number = error.errno or 0
    said = os.strerror(number) if number > 0 else error.strerror  # errors of names are below 0
    return said[:1].lower() + said[1:] if said else str(error)


def _has_left(connection: AnySocket) -> bool:
    if connection.family == socket.AF_UNIX:
        look = select.poll()
        look.register(connection.fileno(), select.POLLRDHUP)
        return bool(look.poll(0))
    if not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return True
    return state in CLOSED


def _reset_at_end(connection: AnySocket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)


def _of_system(error: trio.BrokenResourceError) -> OSError:
    """Return the system's own error, or an error with the reason of TLS."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):  # this is an OSError with its own numbers
        return OSError(getattr(cause, "reason", None) or str(cause))
    return cause if isinstance(cause, OSError) else OSError(str(cause or error))
