"""One request on a client's connection and the response to it, as ASGI has them.

Owns the request's bytes until they are taken, and the response's framing (RFC 9112). When and
whether it is served is the connection's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs
import structlog
import trio

from proxy.http.errors import Problem
from proxy.http.escapes import as_text
from proxy.http.headers import Header
from proxy.http.heads import Reject, check_head, read_target, request_head, response_head
from proxy.http.parsing import BODILESS, UPGRADED

Message = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CANCELS = "llamadoze.cancels"
"""The extension that says: a client that leaves cancels the application's call. ``cancel`` of it
does so, too, and answers for the application if that has not begun to."""
SMALL = 1024  # bytes of a body that do not come alone
UPGRADES = "llamadoze.upgrades"
"""The extension that says: after status 101, bodies are another protocol's bytes, both ways."""
RAW: Message = {UPGRADES: {}}
CANCELLED = "the request was cancelled by an operator"

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


FAULT = Reject(500, "internal error; the daemon's log has more")


class ClientConnection(Protocol):
    """What an exchange needs of the connection that it is on.

    Attributes:
        client: the other side's address and port.
        server: ours.
        scheme: http, or https where it is encrypted.
    """

    client: tuple[str, int] | None
    server: tuple[str, int] | None
    scheme: str

    @property
    def is_closing(self) -> bool:
        """Whether no more requests are taken."""

    async def more(self) -> None:
        """Wait until something has arrived."""

    def taken(self, size: int) -> None:
        """Go on reading: the application has taken so many bytes."""

    async def write(self, data: bytes) -> None:
        """Send all of it; if the client has left, end the connection and with it this call."""

    def break_off(self, exchange: Exchange) -> None:
        """Cancel the application's call for an exchange, if that is the present one."""


@attrs.define(eq=False)
class Exchange:
    """One request and its response.

    Attributes:
        complete: whether all of the request has arrived.
        answered: whether all of the response was sent.
        ended: whether nobody takes what still arrives.
        is_raw: whether what follows the head are another protocol's bytes.
        wanted_since: since when the application waits for more of the request; None if it does not.
    """

    _connection: ClientConnection
    method: str
    target: bytes
    headers: list[Header]
    version: str
    _keep_alive: bool
    complete: bool = attrs.field(default=False, init=False)
    answered: bool = attrs.field(default=False, init=False)
    ended: bool = attrs.field(default=False, init=False)
    is_raw: bool = attrs.field(default=False, init=False)
    wanted_since: float | None = attrs.field(default=None, init=False)
    _reject: Reject | None = attrs.field(default=None, init=False)
    _pieces: list[bytes] = attrs.field(factory=list, init=False)
    _told_all: bool = attrs.field(default=False, init=False)
    _expects: bool = attrs.field(default=False, init=False)
    _status: int = attrs.field(default=0, init=False)
    _head: bytes = attrs.field(default=b"", init=False)
    _chunked: bool = attrs.field(default=False, init=False)
    _bodiless: bool = attrs.field(default=False, init=False)
    _ends_with_connection: bool = attrs.field(default=False, init=False)

    @classmethod
    def rejected(cls, connection: ClientConnection, reason: Reject) -> Exchange:
        """Return what stands for a request that could not be read."""
        exchange = cls(connection, "GET", b"/", [], "1.1", keep_alive=False)
        exchange._reject = reason
        return exchange

    # The request.

    def add(self, data: bytes) -> None:
        """Take a part of the body."""
        if self._pieces and len(self._pieces[-1]) < SMALL:  # not each byte is a piece of its own
            self._pieces[-1] += data
        else:
            self._pieces.append(data)

    def reopen(self) -> None:
        """Let raw bytes follow the head: the client wants another protocol."""
        self.complete = self._keep_alive = False
        self.is_raw = True

    def fail(self, reason: Reject) -> None:
        """Give the request up: the rest of it is not HTTP."""
        self._reject = reason
        self._connection.break_off(self)

    def _cancel(self) -> None:
        self.fail(Reject(499, CANCELLED))

    def end(self) -> None:
        """Take nothing more."""
        self.ended = True
        if self._pieces:
            self._connection.taken(sum(map(len, self._pieces)))
            self._pieces.clear()

    def header(self, name: bytes) -> bytes:
        """Return a header's value, of several the last; nothing if it is not there."""
        return next((value for key, value in reversed(self.headers) if key == name), b"")

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks for a websocket (RFC 6455, 4.1)."""
        return self.method == "GET" and self.header(b"upgrade").lower() == b"websocket"

    def head_without_upgrade(self) -> bytes:
        """Return the request's head as if no other protocol had been asked for."""
        return request_head(
            self.method, self.target, self.version, self.headers, keep_alive=self._keep_alive
        )

    def _waits_for_100(self) -> bool:
        """Whether the body comes once it is asked for (RFC 9110, 10.1.1)."""
        asks = self.header(b"expect").lower() == b"100-continue"
        return asks and self.version == "1.1" and not self.complete

    def _asgi_scope(self) -> Message:
        path, query, self.headers = read_target(self.target, self.headers)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "method": self.method,
            "scheme": self._connection.scheme,
            "path": as_text(path),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self._connection.client,
            "server": self._connection.server,
            "state": {},
            "extensions": {CANCELS: {"cancel": self._cancel}} | (RAW if self.is_raw else {}),
        }

    async def receive(self) -> Message:
        """Return the next part of the request; after its end, wait for the client to leave."""
        if self._expects and not self._pieces and not self._status:
            self._expects = False
            await self._connection.write(CONTINUE)
        while not self._pieces and (self._told_all or not self.complete):
            self.wanted_since = trio.current_time()
            await self._connection.more()
        self.wanted_since = None
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._connection.taken(len(body))
        self._told_all = self.complete
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    # The response.

    @property
    def may_be_followed(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.answered and self.complete and self._keep_alive

    @property
    def looks_whole(self) -> bool:
        """Whether a client would take the end of the connection for the end of a cut answer."""
        return self._ends_with_connection and not self.answered

    async def run(self, app: Application) -> None:
        """Let the application answer; answer for it if it does not."""
        try:
            if self._reject is None:
                check_head(self.version, self.target, self.headers, is_raw=self.is_raw)
                scope = self._asgi_scope()
                self._expects = self._waits_for_100()
                await self._call(app, scope)
                self.end()
        except Reject as reason:
            self._reject = reason
        if not self._status:
            await self.answer_for_app()

    async def answer_for_app(self) -> None:
        """Say what the application has not: that the request was given up, or that it failed."""
        self.end()
        self._keep_alive = False
        if self._head:  # of it, nothing was sent yet
            self._status, self._head = 0, b""
        if not self._status:
            await self._refuse(self._reject or FAULT)

    async def _call(self, app: Application, scope: Message) -> None:
        try:
            await app(scope, self.receive, self.send)
        except* Exception:  # a fault of the program ends this request, not the daemon
            log.exception(f"{self.method} {self.target.decode('latin-1')} failed inside llamadoze")

    async def _refuse(self, reason: Reject) -> None:
        problem = Problem(reason.status, str(reason))
        body = problem.body()
        fields = [*problem.fields(), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": reason.status, "headers": fields})
        await self.send({"type": "http.response.body", "body": body})

    async def send(self, message: Message) -> None:
        """Send a part of the response; if the client has left, this call is cancelled."""
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            if self._chunked or self._status == UPGRADED:
                head, self._head = self._head, b""
                await self._connection.write(head)
        elif not self.answered:
            await self._send_body(message.get("body", b""), message.get("more_body", False))

    async def _send_body(self, body: bytes, more: bool) -> None:
        data = b"" if self._bodiless else body
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += b"" if more else b"0\r\n\r\n"
        if self._head and (data or not more):
            data, self._head = self._head + data, b""
        if data:
            await self._connection.write(data)
        self.answered = not more

    def _begin(self, status: int, headers: list[Header]) -> None:
        self._status = status
        self._bodiless = self.method == "HEAD" or status in BODILESS
        has_length = any(name == b"content-length" for name, _ in headers)
        self._chunked = not (self._bodiless or has_length or status == UPGRADED)
        self._ends_with_connection = self._chunked and self.version == "1.0"
        if self._ends_with_connection:
            self._chunked = self._keep_alive = False
        if self._connection.is_closing or (status >= 400 and not self.complete):
            self._keep_alive = False
        self._head = response_head(status, headers, self._framing())

    def _framing(self) -> list[bytes]:
        lines = [b"transfer-encoding: chunked"] if self._chunked else []
        if self._status == UPGRADED:
            return lines
        if not self._keep_alive:
            lines.append(b"connection: close")
        elif self.version == "1.0":
            lines.append(b"connection: keep-alive")
        return lines
