"""The HTTP/1.1 client towards one model server: kept connections, raw bytes, no time limits.

Owns connections and one exchange at a time on each. What is sent and who waits for it is decided
elsewhere; leaving an exchange before its end closes its connection, which is how a server learns
that nobody listens any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from proxy.headers import Header, to_upstream
from proxy.parsing import ResponseParser, UpstreamError

READ_SIZE = 65536
MOST_KEPT = 16  # idle connections per model server
CLOSING_RACE = 0.05  # seconds in which a server's close may have crossed our request


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

    async def connect(self) -> trio.abc.Stream:
        """Open a connection.

        Raises:
            UpstreamError: nobody listens there.
        """
        try:
            if self.tls:
                return await trio.open_ssl_over_tcp_stream(
                    self.host, self.port, https_compatible=True
                )
            return await trio.open_tcp_stream(self.host, self.port)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name is no host's
            reason = getattr(error, "strerror", None) or "connection refused"
            raise UpstreamError(f"no connection to {self.host}:{self.port}: {reason}") from error


@attrs.define(eq=False)
class Response:
    """An answer whose head has arrived; the body is read as it comes."""

    status: int
    headers: Sequence[Header]
    _stream: trio.abc.Stream
    _parser: ResponseParser
    _first: bytes

    @property
    def can_be_followed(self) -> bool:
        """Whether all of it was read and the connection is good for another exchange."""
        return self._parser.done and self._parser.keep_alive

    async def read(self) -> bytes:
        """Return the next piece of the body, decoded from its framing; nothing at its end.

        One piece for each read of the connection: what arrived together goes on together.

        Raises:
            UpstreamError: the connection broke before the end.
        """
        body, self._first = self._first, b""
        while not body and not self._parser.done:
            if piece := await _receive(self._stream):
                body = self._parser.feed(piece)
            else:
                self._parser.ended()
        return body


@attrs.define(eq=False)
class Upstream:
    """Connections to one model server.

    Attributes:
        origin: where it listens.
        most_kept: idle connections that are kept for the next exchange.
    """

    origin: Origin
    most_kept: int = MOST_KEPT
    _kept: list[trio.SocketStream] = attrs.field(factory=list, init=False)

    @asynccontextmanager
    async def exchange(
        self, method: bytes, target: bytes, headers: Sequence[Header], body: bytes
    ) -> AsyncIterator[Response]:
        """Send a request and read the head of its answer; the block reads the rest.

        Args:
            method: as it goes on the wire, as all else.
            target: path and query, below the origin's base path.
            headers: without Content-Length and Transfer-Encoding, which are set here.
            body: all of it.

        Raises:
            UpstreamError: there is no answer.
        """
        request = _head(method, self.origin.base_path.encode() + target, headers, body) + body
        stream, response = await self._open(request)
        kept = False
        try:
            yield response
            kept = response.can_be_followed and self._keep(stream)
        finally:
            if not kept:
                await trio.aclose_forcefully(stream)

    def close(self) -> None:
        """Close what is kept, and keep nothing more."""
        self.most_kept = 0
        while self._kept:
            self._kept.pop().socket.close()

    def _keep(self, stream: trio.abc.Stream) -> bool:
        # Of a TLS stream one cannot ask whether it was closed meanwhile.
        if isinstance(stream, trio.SocketStream) and len(self._kept) < self.most_kept:
            self._kept.append(stream)
            return True
        return False

    def _pop_kept(self) -> trio.SocketStream | None:
        """Return a kept connection on which nothing has happened since."""
        while self._kept:
            stream = self._kept.pop()
            if not stream.socket.is_readable():  # else it was closed, or said what nobody asked
                return stream
            stream.socket.close()
        return None

    async def _open(self, request: bytes) -> tuple[trio.abc.Stream, Response]:
        """Ask on a kept connection; if its server has just closed it, on a new one."""
        if kept := self._pop_kept():
            asked = trio.current_time()
            with contextlib.suppress(_NotAByte):
                return kept, await _ask(kept, request)
            if trio.current_time() - asked > CLOSING_RACE:
                raise UpstreamError("the model server closed the connection without an answer")
        stream = await self.origin.connect()
        try:
            return stream, await _ask(stream, request)
        except _NotAByte as error:
            reason = "the model server closed the connection without an answer"
            raise UpstreamError(reason) from error


def exchange_for(
    scope: Any,  # noqa: ANN401 -- ASGI
    upstream: Upstream,
    body: bytes,
) -> AbstractAsyncContextManager[Response]:
    """Send a client's request on: same method, path, query, headers, and this body."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    client = scope["client"][0] if scope.get("client") else None
    headers = to_upstream(scope["headers"], client)
    if not any(name == b"host" for name, _ in headers):  # HTTP/1.0; HTTP/1.1 must have one
        headers.append((b"host", f"{upstream.origin.host}:{upstream.origin.port}".encode()))
    return upstream.exchange(scope["method"].encode(), scope["raw_path"] + query, headers, body)


class _NotAByte(Exception):
    """The connection ended before an answer began."""


async def _ask(stream: trio.abc.Stream, request: bytes) -> Response:
    """Send a request and read the head of the answer; close the connection if that fails."""
    parser = ResponseParser()
    try:
        if len(request) <= READ_SIZE:
            await _send(stream, request)
            return await _read_head(stream, parser)
        return await _ask_at_length(stream, request, parser)
    except BaseException:  # whatever it is, the connection is of no more use
        await trio.aclose_forcefully(stream)
        raise


async def _ask_at_length(
    stream: trio.abc.Stream, request: bytes, parser: ResponseParser
) -> Response:
    """Send and read at once: a server may refuse a long request without having read it."""
    failure: Exception | None = None
    response: Response | None = None
    async with trio.open_nursery() as nursery:
        sending = trio.CancelScope()

        async def send() -> None:
            with sending:
                await _send(stream, request)

        nursery.start_soon(send)
        try:
            response = await _read_head(stream, parser)
        except (UpstreamError, _NotAByte) as error:
            failure = error
        sending.cancel()
    if response is None:
        raise failure or _NotAByte
    if sending.cancelled_caught:
        parser.close_after()
    return response


async def _send(stream: trio.abc.Stream, request: bytes) -> None:
    # A server may answer and close without having read all of it; then its answer decides.
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(request)


async def _read_head(stream: trio.abc.Stream, parser: ResponseParser) -> Response:
    while True:
        try:
            piece = await _receive(stream)
        except UpstreamError as error:
            raise (error if parser.size else _NotAByte) from error
        if not piece:
            if not parser.size:
                raise _NotAByte
            parser.ended()
        body = parser.feed(piece) if piece else b""
        if parser.head_done:
            return Response(parser.status, parser.headers, stream, parser, body)


async def _receive(stream: trio.abc.Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(READ_SIZE))
    except trio.BrokenResourceError as error:
        raise UpstreamError("the connection to the model server broke") from error


def _head(method: bytes, target: bytes, headers: Sequence[Header], body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % header for header in headers)]
    if body or method not in (b"GET", b"HEAD"):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n"
