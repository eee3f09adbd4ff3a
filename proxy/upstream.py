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
import httptools
import trio

from proxy.headers import Header, to_upstream

READ_SIZE = 65536
MOST_KEPT = 16  # idle connections per model server
LONGEST_HEAD = 256 * 1024  # bytes of status line and headers


class UpstreamError(Exception):
    """The model server could not be reached, or broke off; the text says which."""


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
        except OSError as error:
            reason = error.strerror or "connection refused"
            raise UpstreamError(f"no connection to {self.host}:{self.port}: {reason}") from error


@attrs.define(eq=False)
class _Parser:
    """What httptools tells of one response."""

    status: int = 0
    headers: list[Header] = attrs.field(factory=list)
    head_done: bool = False
    done: bool = False
    keep_alive: bool = False
    body: list[bytes] = attrs.field(factory=list)
    size: int = 0
    _parser: httptools.HttpResponseParser = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.head_done = self.status >= 200

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.done = True
            self.keep_alive = self._parser.should_keep_alive()
        else:  # an interim response (RFC 9110, 15.2); the real one follows
            self.headers.clear()

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; return what they hold of the body."""
        self.size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise UpstreamError(f"the model server's answer is not HTTP: {error}") from error
        if not self.head_done and self.size > LONGEST_HEAD:
            raise UpstreamError("the model server's answer has too long a head")
        body, self.body = b"".join(self.body), []
        return body

    def ended(self) -> None:
        """Take note that the connection was closed: the end of a body without a length."""
        framed = {name.lower() for name, _ in self.headers}
        if not self.head_done or framed & {b"content-length", b"transfer-encoding"}:
            raise UpstreamError("the model server closed the connection in mid-answer")
        self.done = True


@attrs.define(eq=False)
class Response:
    """An answer whose head has arrived; the body is read as it comes."""

    status: int
    headers: Sequence[Header]
    _stream: trio.abc.Stream
    _parser: _Parser
    _first: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, decoded from its framing: one piece for each read.

        Raises:
            UpstreamError: the connection broke before the end.
        """
        if self._first:
            yield self._first
        while not self._parser.done:
            piece = await _receive(self._stream)
            if not piece:
                self._parser.ended()
            elif body := self._parser.feed(piece):
                yield body


@attrs.define(eq=False)
class Upstream:
    """Connections to one model server."""

    origin: Origin
    _kept: list[trio.abc.Stream] = attrs.field(factory=list, init=False)

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
            parser = response._parser
            if parser.done and parser.keep_alive and len(self._kept) < MOST_KEPT:
                self._kept.append(stream)
                kept = True
        finally:
            if not kept:
                await trio.aclose_forcefully(stream)

    async def close(self) -> None:
        """Close what is kept."""
        while self._kept:
            await trio.aclose_forcefully(self._kept.pop())

    async def _open(self, request: bytes) -> tuple[trio.abc.Stream, Response]:
        """Ask on a kept connection or, where the server has closed those, on a new one."""
        while self._kept:
            stream = self._kept.pop()
            if response := await self._ask(stream, request, fresh=False):
                return stream, response
        stream = await self.origin.connect()
        response = await self._ask(stream, request, fresh=True)
        if response is None:
            raise UpstreamError("the model server closed the connection without an answer")
        return stream, response

    async def _ask(
        self, stream: trio.abc.Stream, request: bytes, *, fresh: bool
    ) -> Response | None:
        """Return the answer; None if the connection was closed before its first byte."""
        try:
            return await _first_answer(stream, request)
        except BaseException as error:  # whatever it is, the connection is of no more use
            await trio.aclose_forcefully(stream)
            if isinstance(error, _NotAByte):
                if fresh:
                    raise UpstreamError("the model server closed the connection") from error
                return None
            raise


def exchange_for(
    scope: Any,  # noqa: ANN401 -- ASGI
    upstream: Upstream,
    body: bytes,
) -> AbstractAsyncContextManager[Response]:
    """Send a client's request on: same method, path, query, headers, and this body."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    client = scope["client"][0] if scope.get("client") else None
    return upstream.exchange(
        scope["method"].encode(),
        scope["raw_path"] + query,
        to_upstream(scope["headers"], client),
        body,
    )


class _NotAByte(Exception):
    """The connection ended before an answer began."""


async def _first_answer(stream: trio.abc.Stream, request: bytes) -> Response:
    parser = _Parser()
    # A server may answer and close without having read all of it; then its answer decides.
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(request)
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
