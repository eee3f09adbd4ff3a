"""What arrives on a client's connection: bytes in, exchanges that wait to be served out.

Owns what counts as a request: httptools' callbacks as one object's state, RFC 9112's framing, and
the end of HTTP where a websocket begins. Does no I/O.
"""

from __future__ import annotations

from collections import deque

import attrs
import httptools
import trio

from proxy.http.exchange import ClientConnection, Exchange
from proxy.http.headers import Header
from proxy.http.heads import LONGEST_HEAD, MOST_HEADERS, TOO_LONG, Reject, too_large

MOST_BUFFERED = 256 * 1024  # bytes that wait to be taken
MOST_WAITING = 4  # requests that wait for those before them


@attrs.define(eq=False)
class Arrivals:
    """The requests of one connection, from their first byte until they are served.

    Attributes:
        waiting: those whose head is whole, in the order of their coming.
        arriving: the last of them, if more of it comes; it may be served already.
        raw: the one behind whose head another protocol begins.
        head_size: bytes of a head that is not whole.
        head_began: when its first byte came.
        buffered: bytes of bodies that were not taken yet.
    """

    _connection: ClientConnection
    waiting: deque[Exchange] = attrs.field(factory=deque, init=False)
    arriving: Exchange | None = attrs.field(default=None, init=False)
    raw: Exchange | None = attrs.field(default=None, init=False)
    head_size: int = attrs.field(default=0, init=False)
    head_began: float = attrs.field(default=0.0, init=False)
    buffered: int = attrs.field(default=0, init=False)
    _deaf: bool = attrs.field(default=False, init=False)
    _parser: httptools.HttpRequestParser = attrs.field(init=False)
    _url: bytes = attrs.field(default=b"", init=False)
    _headers: list[Header] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read for now."""
        return self.buffered > MOST_BUFFERED or len(self.waiting) > MOST_WAITING

    @property
    def is_partial(self) -> bool:
        """Whether the last request is not whole."""
        return self.arriving is not None or self.head_size > 0

    def take(self, data: bytes) -> None:
        """Take bytes in."""
        while data and not self._deaf:
            if self.raw is not None:
                self._add(self.raw, data)
                return
            is_first = not self.head_size
            self.head_size += len(data)
            data = self._parse(data)
            if is_first and self.head_size:  # it is not whole
                self.head_began = trio.current_time()
        if self.head_size > LONGEST_HEAD and not self.raw:  # or a body's trailer without end
            self._reject(TOO_LONG)

    def _parse(self, data: bytes) -> bytes:
        """Let the parser have bytes; return those that are to be looked at again."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(Reject(400, f"the request is not HTTP/1.1: {error}"))
        return b""

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Let a websocket's bytes through as they are; ignore any other wish (RFC 9110, 7.8)."""
        asking = self.waiting[-1]
        self.head_size = 0
        if asking.wants_websocket:
            self.raw = asking
            asking.reopen()
            return rest
        self.waiting.pop()
        if asking.method == "CONNECT":
            self._reject(Reject(405, "this is no proxy for other servers"))
            return b""
        self._parser = httptools.HttpRequestParser(self)
        return asking.head_without_upgrade() + rest

    def _reject(self, reason: Reject) -> None:
        """Answer after those that came before; listen to nothing more."""
        if self.arriving is not None:
            self.arriving.fail(reason)
        else:
            self.waiting.append(Exchange.rejected(self._connection, reason))
        self.arriving, self._deaf = None, True

    def _add(self, exchange: Exchange, data: bytes) -> None:
        if data and not exchange.ended:
            exchange.add(data)
            self.buffered += len(data)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are not listened to."""
        if self.arriving is None and len(self._headers) <= MOST_HEADERS:
            # Blanks at a value's end are no part of it (RFC 9110, 5.5).
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        size, self.head_size = self.head_size, 0
        parser = self._parser
        method, version = parser.get_method().decode(), parser.get_http_version()
        keep_alive = parser.should_keep_alive()
        exchange = Exchange(self._connection, method, self._url, self._headers, version, keep_alive)
        self.arriving = exchange
        self.waiting.append(exchange)
        if reason := too_large(size, self._url, self._headers):
            exchange.fail(reason)

    def on_body(self, data: bytes) -> None:
        """A part of the body, free of its framing."""
        self.head_size = 0
        if self.arriving is not None:
            self._add(self.arriving, data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.head_size = 0
        if self.arriving is not None:
            self.arriving.complete = True
            self.arriving = None
