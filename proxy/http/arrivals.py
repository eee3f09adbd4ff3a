"""What arrives on a client's connection: bytes go in, exchanges that wait to be served come out.

Owns what counts as a request: the state behind httptools' callbacks, RFC 9112's framing, and the
end of HTTP where a websocket begins. Does no I/O.
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
        waiting: requests whose head is whole, in the order of arrival.
        arriving: the last of them while its body still arrives; it may already be served.
        raw: the request after whose head another protocol begins.
        head_size: bytes of a head that is not whole yet.
        head_began: when the first byte of that head came.
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
        """Whether the connection should read no more for now."""
        return self.buffered > MOST_BUFFERED or len(self.waiting) > MOST_WAITING

    @property
    def is_partial(self) -> bool:
        """Whether the last request is not whole yet."""
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
            if is_first and self.head_size:  # the head is not whole
                self.head_began = trio.current_time()
        if self.head_size > LONGEST_HEAD and not self.raw:  # or an endless trailer of a body
            self._reject(TOO_LONG)

    def _parse(self, data: bytes) -> bytes:
        """Give bytes to the parser, and return the bytes that must be taken again."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(Reject(400, f"the request is not HTTP/1.1: {error}"))
        return b""

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Pass a websocket's bytes on as they are. Ignore other upgrades (RFC 9110, 7.8)."""
        asking = self.waiting[-1]
        self.head_size = 0
        if asking.wants_websocket:
            self.raw = asking
            asking.reopen()
            return rest
        self.waiting.pop()
        if asking.method == "CONNECT":
            self._reject(Reject(405, "CONNECT is not supported: llamadoze is not a general proxy"))
            return b""
        self._parser = httptools.HttpRequestParser(self)
        return asking.head_without_upgrade() + rest

    def _reject(self, reason: Reject) -> None:
        """Answer with the reason, after the requests that came before; then ignore all bytes."""
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
        """A header. Trailers are ignored."""
        if self.arriving is None and len(self._headers) <= MOST_HEADERS:
            # Blanks at the end of a value do not belong to the value (RFC 9110, 5.5).
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
        """A part of the body, without its framing."""
        self.head_size = 0
        if self.arriving is not None:
            self._add(self.arriving, data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.head_size = 0
        if self.arriving is not None:
            self.arriving.complete = True
            self.arriving = None
