"""One request on a client's connection and the response to it, as ASGI has them.

Owns the request's bytes until they are taken, and the response's framing (RFC 9112). When and
whether it is served is the connection's.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import attrs
import structlog
import trio

from proxy.http.errors import Problem
from proxy.http.headers import Header
from proxy.http.parsing import BODILESS, UPGRADED

if TYPE_CHECKING:
    from proxy.http.http1 import Application, Connection

Message = dict[str, Any]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CANCELS = "llamadoze.cancels"
"""The extension that says: a client that leaves cancels the application's call. ``cancel`` of it
does so, too, and answers for the application if that has not begun to."""
UPGRADES = "llamadoze.upgrades"
"""The extension that says: after status 101, bodies are another protocol's bytes, both ways."""
RAW: Message = {UPGRADES: {}}
FRAMING = {b"content-length", b"transfer-encoding"}
CANCELLED = "the request was cancelled by an operator"

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


class Reject(Exception):
    """A request that no application sees: what the client is told, and the status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


FAULT = Reject(500, "internal error; the daemon's log has more")


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

    _connection: Connection
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

    @classmethod
    def rejected(cls, connection: Connection, reason: Reject) -> Exchange:
        """Return what stands for a request that could not be read."""
        exchange = cls(connection, "GET", b"/", [], "1.1", keep_alive=False)
        exchange._reject = reason
        return exchange

    # The request.

    def add(self, data: bytes) -> None:
        """Take a part of the body."""
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
        line = (self.method.encode(), self.target, self.version.encode())
        lines = [b"%b %b HTTP/%b" % line]
        if not self._keep_alive:
            lines.append(b"connection: close")
        lines += [
            b"%b: %b" % pair for pair in self.headers if pair[0] not in (b"upgrade", b"connection")
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _check(self) -> None:
        """Refuse what the parser lets through and we do not serve.

        Raises:
            Reject: the framing could be read in two ways, or the host is missing.
        """
        if self.version not in ("1.0", "1.1"):
            raise Reject(505, f"HTTP/{self.version} is not spoken here")
        if b"#" in self.target:
            raise Reject(400, "a target has no fragment")
        lengths = [name for name, _ in self.headers if name in FRAMING]
        if self.is_raw and lengths:
            raise Reject(400, "the request for a websocket has no body")
        coding = [value for name, value in self.headers if name == b"transfer-encoding"]
        if coding and (len(coding) > 1 or coding[0].lower() != b"chunked"):
            raise Reject(501, "the only transfer coding is chunked")
        if coding and self.version == "1.0":
            raise Reject(400, "HTTP/1.0 has no transfer coding")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.version != "1.0"):
            raise Reject(400, "expected one Host header")

    def _waits_for_100(self) -> bool:
        """Whether the body comes once it is asked for (RFC 9110, 10.1.1)."""
        asks = self.header(b"expect").lower() == b"100-continue"
        return asks and self.version == "1.1" and not self.complete

    def _asgi_scope(self) -> Message:
        path, _, query = self.target.partition(b"?")
        if not path.startswith(b"/") and path != b"*":
            path = _path_of(path)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "method": self.method,
            "scheme": self._connection.scheme,
            "path": unquote(path.decode("latin-1")),
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
            await self._write(CONTINUE)
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

    async def run(self, app: Application) -> None:
        """Let the application answer; answer for it if it does not."""
        try:
            if self._reject is None:
                self._check()
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
                await self._write(head)
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
            await self._write(data)
        self.answered = not more

    def _begin(self, status: int, headers: list[Header]) -> None:
        self._status = status
        self._bodiless = self.method == "HEAD" or status in BODILESS
        has_length = any(name == b"content-length" for name, _ in headers)
        self._chunked = not (self._bodiless or has_length or status == UPGRADED)
        if self._chunked and self.version == "1.0":
            self._chunked = self._keep_alive = False
        if self._connection.is_closing or (status >= 400 and not self.complete):
            self._keep_alive = False
        lines = [b"HTTP/1.1 %d %b" % (status, _phrase(status)), b"date: " + _date(int(time.time()))]
        lines += [b"%b: %b" % header for header in headers]
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        if status != UPGRADED:
            if not self._keep_alive:
                lines.append(b"connection: close")
            elif self.version == "1.0":
                lines.append(b"connection: keep-alive")
        self._head = b"\r\n".join(lines) + b"\r\n\r\n"

    async def _write(self, data: bytes) -> None:
        try:
            await self._connection.wire.send(data)
        except (OSError, trio.ClosedResourceError):
            self._connection.close()
            await trio.sleep_forever()


def _path_of(address: bytes) -> bytes:
    """Return the path of a target that is a whole address (RFC 9112, 3.2.2)."""
    try:
        return urlsplit(address).path or b"/"
    except ValueError as error:
        raise Reject(400, f"the request's target is no address: {error}") from None


@lru_cache(64)
def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


@lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
