"""Where a model server or a peer listens, and the way to a connection.

Owns addresses, TLS and the time limits of both. What is sent is the upstream's.
"""

from __future__ import annotations

import socket
import ssl
from functools import cache
from math import inf
from urllib.parse import urlsplit

import attrs
import trio

from configschema import Timeouts
from proxy.http.parsing import UpstreamError
from proxy.http.wire import Encrypted, Plain, Wire

NO_TIMEOUTS = Timeouts()


@attrs.frozen
class Origin:
    """Where a model server listens."""

    host: str
    port: int
    tls: bool = False
    base_path: str = ""

    @classmethod
    def of(cls, url: str) -> Origin:
        """Read an address such as ``http://127.0.0.1:8000/base``."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname or "localhost", port, tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    async def connect(self, timeouts: Timeouts) -> Wire:
        """Open a connection.

        Raises:
            UpstreamError: nobody listens there, or not in time.
        """
        where = f"no connection to {self.host}:{self.port}"
        with trio.move_on_after(timeouts.connect or inf):
            try:
                stream = await trio.open_tcp_stream(self.host, self.port)
            except (OSError, UnicodeError) as error:  # UnicodeError: the name is no host's
                reason = getattr(error, "strerror", None) or "connection refused"
                raise UpstreamError(f"{where}: {reason}") from error
            _probe_when_idle(stream, timeouts.keepalive)
            return await self._encrypt(stream, timeouts) if self.tls else Plain.of(stream)
        raise UpstreamError(f"{where} within {timeouts.connect}s (timeouts.connect)")

    async def _encrypt(self, stream: trio.SocketStream, timeouts: Timeouts) -> Wire:
        encrypted = trio.SSLStream(stream, _tls(), server_hostname=self.host, https_compatible=True)
        try:
            with trio.fail_after(timeouts.tls_handshake or inf):
                await encrypted.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            await trio.aclose_forcefully(stream)
            reason = str(error.__cause__ or "") or "too slow (timeouts.tlsHandshake)"
            raise UpstreamError(f"no TLS with {self.host}:{self.port}: {reason}") from error
        except BaseException:  # cancelled
            await trio.aclose_forcefully(stream)
            raise
        return Encrypted(encrypted)


def _probe_when_idle(stream: trio.SocketStream, every: int) -> None:
    """Let the system ask now and then whether the other side still lives."""
    if every:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # not on every platform
            if hasattr(socket, option):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), every)


@cache  # reading the system's certificates takes 50 ms
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
