"""One request on a client's connection and the response to it.

Owns the request's bytes until they are taken, and the response's framing (RFC 9112). The connection
decides whether and when the request is served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

import attrs
import structlog
import trio

from proxy.http.errors import INTERNAL, Problem
from proxy.http.headers import Header
from proxy.http.heads import Reject, as_text, check_head, read_target, request_head, response_head
from proxy.http.parsing import BODILESS, UPGRADED
from proxy.http.wire import Wire

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SMALL = 1024  # bytes; a smaller piece of a body is joined with the next
CANCELLED = "the request was cancelled by an operator"
LOST = (OSError, trio.ClosedResourceError)
"""Errors that mean that the client has disconnected."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


FAULT = Reject(500, INTERNAL)


class ClientConnection(Protocol):
    """What an exchange needs of its connection.

    Attributes:
        wire: where the response is written.
        client: the client's address and port.
        server: llamadoze's address and port.
        scheme: http, or https if the connection is encrypted.
        is_closing: whether the connection takes no more requests.
    """

    wire: Wire
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    scheme: str
    is_closing: bool

    async def more(self) -> None:
        """Wait until something has arrived."""

    def taken(self, size: int) -> None:
        """Go on reading, since `size` bytes have been taken."""

    async def lost(self) -> NoReturn:
        """End the connection and this call: the client has disconnected."""

    def break_off(self, exchange: Exchange) -> None:
        """Cancel the call that serves an exchange, if the exchange is the current one."""


@attrs.define(eq=False)
class Exchange:
    """One request and its response.

    Attributes:
        connection: the connection of the exchange.
        method: the request's method.
        target: the request's target, as it was sent.
        headers: the request's headers in their order, with names in lower case.
        version: the request's version of HTTP.
        fields: the first value of each header.
        path: the decoded path.
        raw_path: the path as it was sent.
        query: the query as it was sent, without the question mark.
        complete: whether all of the request has arrived.
        all_read: whether all of the request was read.
        answered: whether all of the response was sent.
        ended: whether bytes that still arrive are dropped.
        is_raw: whether bytes of another protocol follow the head.
        wanted_since: when a task began to wait for more of the request; None if none waits.
    """

    connection: ClientConnection
    method: str
    target: bytes
    headers: list[Header]
    version: str
    _keep_alive: bool
    fields: Mapping[bytes, bytes] = attrs.field(init=False)
    path: str = attrs.field(default="/", init=False)
    raw_path: bytes = attrs.field(default=b"/", init=False)
    query: bytes = attrs.field(default=b"", init=False)
    complete: bool = attrs.field(default=False, init=False)
    all_read: bool = attrs.field(default=False, init=False)
    answered: bool = attrs.field(default=False, init=False)
    ended: bool = attrs.field(default=False, init=False)
    is_raw: bool = attrs.field(default=False, init=False)
    wanted_since: float | None = attrs.field(default=None, init=False)
    _reject: Reject | None = attrs.field(default=None, init=False)
    _pieces: list[bytes] = attrs.field(factory=list, init=False)
    _expects: bool = attrs.field(default=False, init=False)
    _status: int = attrs.field(default=0, init=False)
    _head: bytes = attrs.field(default=b"", init=False)
    _chunked: bool = attrs.field(default=False, init=False)
    _bodiless: bool = attrs.field(default=False, init=False)
    _ends_with_connection: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.fields = dict(reversed(self.headers))

    @classmethod
    def rejected(cls, connection: ClientConnection, reason: Reject) -> Exchange:
        """Return an exchange that stands for a request that could not be read."""
        exchange = cls(connection, "GET", b"/", [], "1.1", keep_alive=False)
        exchange._reject = reason
        return exchange

    # The request.

    def add(self, data: bytes) -> None:
        """Take a part of the body."""
        if self._pieces and len(self._pieces[-1]) < SMALL:  # so that no byte is a piece of its own
            self._pieces[-1] += data
        else:
            self._pieces.append(data)

    def reopen(self) -> None:
        """Let raw bytes follow the head: the client wants another protocol."""
        self.complete = self._keep_alive = False
        self.is_raw = True

    def fail(self, reason: Reject) -> None:
        """Give the request up, and answer with the reason if no answer has begun."""
        self._reject = reason
        self.connection.break_off(self)

    def cancel(self) -> None:
        """Give the request up for an operator, and say so if no answer has begun."""
        self.fail(Reject(499, CANCELLED))

    def end(self) -> None:
        """Take no more bytes of the request."""
        self.ended = True
        if self._pieces:
            self.connection.taken(sum(map(len, self._pieces)))
            self._pieces.clear()

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks for a websocket (RFC 6455, 4.1)."""
        return self.method == "GET" and self.fields.get(b"upgrade", b"").lower() == b"websocket"

    def head_without_upgrade(self) -> bytes:
        """Return the request's head without the headers that ask for another protocol."""
        return request_head(
            self.method, self.target, self.version, self.headers, keep_alive=self._keep_alive
        )

    def _waits_for_100(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body (RFC 9110, 10.1.1)."""
        asks = self.fields.get(b"expect", b"").lower() == b"100-continue"
        return asks and self.version == "1.1" and not self.complete

    def _understand(self) -> None:
        """Read the head.

        Raises:
            Reject: llamadoze does not serve this request.
        """
        check_head(self.version, self.target, self.headers, self.fields, is_raw=self.is_raw)
        self.raw_path, self.query, host = read_target(self.target)
        if host:
            self.headers = [(b"host", host), *(p for p in self.headers if p[0] != b"host")]
            self.fields = dict(reversed(self.headers))
        self.path = as_text(self.raw_path)
        self._expects = b"expect" in self.fields and self._waits_for_100()

    async def read(self) -> bytes:
        """Return the next part of the request's body; nothing at its end.

        If the client disconnects before the end, the call is cancelled.
        """
        if self._expects and not self._pieces and not self._status:
            self._expects = False
            await self._send(CONTINUE)
        while not self._pieces and not self.complete:
            self.wanted_since = trio.current_time()
            await self.connection.more()
        self.wanted_since = None
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.connection.taken(len(body))
        self.all_read = self.complete
        return body

    # The response.

    @property
    def may_be_followed(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.answered and self.complete and self._keep_alive

    @property
    def looks_whole(self) -> bool:
        """Whether a client would mistake a cut answer for a whole one when the connection ends."""
        return self._ends_with_connection and not self.answered

    async def run(self, handle: Handler) -> None:
        """Let the handler answer the request; if it does not, send the reason."""
        if self._is_understood():
            try:
                await handle(self)
            except* Exception:  # a fault of the program ends this request, not the daemon
                where = f"{self.method} {self.target.decode('latin-1')}"
                log.exception(f"{where} failed inside llamadoze")
            self.end()
        if not self._status or self._head:
            await self.say_why()

    def _is_understood(self) -> bool:
        if self._reject is None:
            try:
                self._understand()
            except Reject as reason:
                self._reject = reason
        return self._reject is None

    async def say_why(self) -> None:
        """Tell the client that the request was given up or failed, if no answer was sent yet."""
        self.end()
        self._keep_alive = False
        if self._head:  # nothing of the response was sent yet
            self._status, self._head = 0, b""
        if not self._status:
            reason = self._reject or FAULT
            problem = Problem(reason.status, str(reason))
            await self.say(reason.status, problem.fields(), problem.body())

    async def say(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Answer with a whole body. The rest of the request is then not needed."""
        if not self.complete:
            self._keep_alive = False
        self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.write(body, last=True)

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        """Begin the response. Its head is sent with the first bytes of the body, or by `flush`."""
        self._status = status
        self._bodiless = self.method == "HEAD" or status in BODILESS
        ends = self._bodiless or b"content-length" in dict(headers) or status == UPGRADED
        self._chunked = not ends and self.version != "1.0"
        self._ends_with_connection = not (ends or self._chunked)
        if self._ends_with_connection:
            self._keep_alive = False
        if self.connection.is_closing or (status >= 400 and not self.complete):
            self._keep_alive = False
        self._head = response_head(status, headers, self._framing())

    async def flush(self) -> None:
        """Send the head now, if the length of the body is not known."""
        no_end = self._chunked or self._ends_with_connection or self._status == UPGRADED
        if self._head and no_end:
            head, self._head = self._head, b""
            await self._send(head)

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the response's body, or the last part. If the client has disconnected,
        this call is cancelled."""
        if self.answered:
            return
        data = b"" if self._bodiless else body
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if last:
                data += b"0\r\n\r\n"
        if self._head and (data or last):
            data, self._head = self._head + data, b""
        if data:
            await self._send(data)
        self.answered = last

    async def _send(self, data: bytes) -> None:
        try:
            await self.connection.wire.send(data)
        except LOST:
            await self.connection.lost()

    def _framing(self) -> Sequence[bytes]:
        if self._status == UPGRADED:
            return ()
        lines = [b"transfer-encoding: chunked"] if self._chunked else []
        if not self._keep_alive:
            lines.append(b"connection: close")
        elif self.version == "1.0":
            lines.append(b"connection: keep-alive")
        return lines


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers an exchange. It is cancelled when the client disconnects."""
