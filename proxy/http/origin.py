"""Where a model server or a peer listens, and how a connection to it is opened.

Owns addresses, TLS, the timeouts of both, and how a machine that is gone is detected. `upstream`
owns what is sent.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
import struct
from contextlib import suppress
from functools import cache
from math import inf
from urllib.parse import urlsplit

import attrs
import trio

from configschema import Entrance, Timeouts
from proxy.http.parsing import Broken, Stalled, UpstreamError
from proxy.http.wire import AnySocket, Encrypted, Plain, Wire, words_of
from supervisor.clusters.tunnel import enter

NO_TIMEOUTS = Timeouts()
LONGEST = 2_000_000  # seconds; the system counts milliseconds in 31 bits
LONGEST_PAUSE, MOST_PROBES = 32767, 127  # the limits of Linux
FEW_PROBES = 5  # more than one, since a probe may be lost
BETWEEN_LOOKS = 1.0  # seconds
UNHEARD = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)  # of an open connection
TRIED = re.compile(r"Error connecting to \('([^']+)'")  # trio's message
UNANSWERED = struct.Struct("=2xBB52xI")  # of Linux' tcp_info: two counts, ms since the last ACK


@attrs.frozen
class Origin:
    """Where a model server listens.

    Attributes:
        host: name or address of the machine.
        port: the port on the host.
        tls: whether connections use TLS.
        base_path: the beginning of all paths on the server.
        entrance: the way to a server on a node of a cluster; then host and port are the node's.
    """

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    entrance: Entrance | None = None

    @classmethod
    def of(cls, url: str, entrance: Entrance | None = None) -> Origin:
        """Read an address such as ``http://127.0.0.1:8000/base``."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname or "localhost", port, tls, parts.path.rstrip("/"), entrance)

    @property
    def authority(self) -> str:
        """Host and port in the form of a Host header (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def near_address(self) -> str:
        """The address, if it is certainly on this machine; otherwise an empty string."""
        if self.entrance:
            return ""
        if self.host == "localhost":  # RFC 6761, 6.3: always here
            return "127.0.0.1"
        is_address = self.host.replace(".", "").isdecimal()
        return self.host if is_address and self.host.startswith("127.") else ""

    async def connect(self, timeouts: Timeouts) -> Wire:
        """Open a connection.

        Raises:
            UpstreamError: no server listens there, or the connection timed out.
        """
        beyond = f" through {self.entrance.host}" if self.entrance else ""
        where = f"no connection to {self.host}:{self.port}{beyond}"
        with trio.move_on_after(timeouts.connect or inf):
            try:
                if not self.tls and (wire := await self._connect_near()):
                    with suppress(OSError):  # it is closed already
                        _limit_silence(wire.connection, timeouts)
                    return wire
                stream = await self._open()
            except (OSError, UnicodeError) as error:
                raise UpstreamError(f"{where}: {_reason(error)}") from error
            except RuntimeError as error:  # no thread is left for looking up the name
                raise UpstreamError(f"{where}: {error}") from error
            with suppress(OSError):  # it is closed already
                _limit_silence(stream.socket, timeouts)
            return await self._encrypt(stream, timeouts) if self.tls else Plain.of(stream)
        raise UpstreamError(f"{where} within {timeouts.connect}s (timeouts.connect)")

    async def _open(self) -> trio.SocketStream:
        if self.entrance:
            return await enter(self.entrance)
        return await trio.open_tcp_stream(self.host, self.port)

    async def _connect_near(self) -> Wire | None:
        """Connect to a server on this machine, mostly without yielding to other tasks.

        Returns None if the usual way to connect may still succeed.

        Raises:
            OSError: no server listens there.
        """
        if not (address := self.near_address):
            return None
        try:
            return await _connected(address, self.port)
        except OSError:
            if address != self.host:  # the server may listen on IPv6 only
                return None
            raise

    def broken(self, error: OSError, timeouts: Timeouts) -> Broken:
        """Return an error that tells how a connection broke."""
        reason = words_of(error)
        if error.errno in UNHEARD and timeouts.silence:
            also = "" if error.errno == errno.ETIMEDOUT else f", {reason}"
            limit = f"{timeouts.silence}s{also} (timeouts.silence)"
            reason = f"nothing was heard from {self.host} for {limit}"
        return Broken(f"the connection to the model server broke: {reason}")

    async def _encrypt(self, stream: trio.SocketStream, timeouts: Timeouts) -> Wire:
        encrypted = trio.SSLStream(stream, _tls(), server_hostname=self.host, https_compatible=True)
        try:
            with trio.fail_after(timeouts.tls_handshake or inf):
                await encrypted.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            await trio.aclose_forcefully(stream)
            reason = str(error.__cause__ or "") or "it took too long (timeouts.tlsHandshake)"
            raise UpstreamError(
                f"the TLS handshake with {self.host}:{self.port} failed: {reason}"
            ) from error
        except BaseException:  # cancelled
            await trio.aclose_forcefully(stream)
            raise
        return Encrypted(encrypted)


async def _connected(host: str, port: int) -> Wire:
    near = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    near.setblocking(False)
    try:
        try:
            near.connect((host, port))
        except BlockingIOError:  # the server's queue is full
            await trio.lowlevel.wait_writable(near)
            _raise_failure(near)
        return Plain.connected(near)
    except BaseException:  # also if cancelled
        near.close()
        raise


def _raise_failure(connecting: socket.socket) -> None:
    if failure := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(failure, os.strerror(failure))


def _reason(error: OSError | UnicodeError) -> str:
    """Return why the connection failed: the system's reasons, for each address if they differ."""
    if isinstance(error, UnicodeError):
        return "this is not a valid host name"
    cause = error.__cause__
    tried = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause or error,)
    errors = [one for one in tried if isinstance(one, OSError)] or [error]
    reasons = {words_of(one) for one in errors}
    return reasons.pop() if len(reasons) == 1 else "; ".join(map(_said_of_one, errors))


def _said_of_one(error: OSError) -> str:
    found = TRIED.match(error.strerror or "")
    address = f"[{found[1]}]" if found and ":" in found[1] else found and found[1]
    return f"{address} {words_of(error)}" if address else words_of(error)


def _limit_silence(connection: AnySocket, timeouts: Timeouts) -> None:
    """Let the system probe whether the other side is alive, and end the connection if not."""
    silence = min(timeouts.silence, LONGEST) if _is_elsewhere(connection) else 0
    if silence:
        idle, every, count = probes(timeouts.keepalive, silence)
        pauses = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": every, "TCP_KEEPCNT": count}
        _set_user_timeout(connection, 1000 * silence)
    else:
        every = min(timeouts.keepalive, LONGEST_PAUSE)
        pauses = {"TCP_KEEPIDLE": every, "TCP_KEEPINTVL": every}
    if every:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in pauses.items():
            if hasattr(socket, option):  # not on every platform
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def probes(keepalive: int, silence: int) -> tuple[int, int, int]:
    """Return the seconds before the first probe, the seconds between probes, and their number.

    Together they take as long as `silence`, but at least 2 seconds: the system allows no less.
    """
    first = min(keepalive or silence, max(1, silence // 2), LONGEST_PAUSE)
    rest = silence - first
    every = max(1, min(first, rest // FEW_PROBES), -(-rest // MOST_PROBES))
    count = max(1, rest // every)
    return min(max(1, silence - count * every), LONGEST_PAUSE), every, count


def _is_elsewhere(connection: AnySocket) -> bool:
    """Whether the other side is on another machine, which may vanish without closing."""
    with suppress(OSError, ValueError):  # the connection is closed already, or is not over IP
        here, there = connection.getsockname()[0], connection.getpeername()[0]
        return here != there and not ipaddress.ip_address(there).is_loopback
    return False


def longest_wait(timeouts: Timeouts) -> float:
    """Return the longest time in seconds until an answer must begin."""
    return min(timeouts.response_header or inf, timeouts.busy or inf)


def late(timeouts: Timeouts) -> UpstreamError:
    """Return the error for an answer that took longer than `longest_wait`."""
    limit = timeouts.response_header
    return too_late(limit) if longest_wait(timeouts) == limit else stalled(timeouts.busy)


def too_late(limit: int) -> UpstreamError:
    """Return the error for an answer that has not begun in time."""
    return UpstreamError(f"no answer within {limit}s (timeouts.responseHeader)")


def stalled(busy: int) -> Stalled:
    """Return the error for a model server that has sent nothing for too long."""
    return Stalled(f"no byte from the model server for {busy}s (timeouts.busy)")


def longest_silence(connection: AnySocket) -> int:
    """Return how many milliseconds the other side's system may be silent; 0 means no limit."""
    with suppress(OSError, AttributeError):  # AttributeError: only Linux has this option
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    return 0


async def until_silent(connection: AnySocket, limit: int) -> None:
    """Return when the other side's system has not answered for `limit` milliseconds.

    Meanwhile, our own system's check is off. That check would also end a connection whose other
    side is alive and takes nothing of a long body for a while, as a busy model server may.
    """
    _set_user_timeout(connection, 0)
    try:
        while True:
            await trio.sleep(BETWEEN_LOOKS)
            if _is_silent(connection, limit):
                return
    finally:
        _set_user_timeout(connection, limit)


def _is_silent(connection: AnySocket, limit: int) -> bool:
    with suppress(OSError):  # the connection was closed: the task that reads it gets the error
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNANSWERED.size)
        sent_again, asked, since = UNANSWERED.unpack(info)
        return bool(sent_again or asked) and since >= limit
    return False


def _set_user_timeout(connection: AnySocket, milliseconds: int) -> None:
    with suppress(OSError, AttributeError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


@cache  # reading the system's certificates takes 50 ms
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
