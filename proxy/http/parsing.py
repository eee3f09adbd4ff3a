"""Parser of a model server's answer: the state behind httptools' callbacks.

Owns what counts as the answer to one request. Interim responses, trailers and bytes after the end
do not count. Does no I/O.
"""

from __future__ import annotations

import attrs
import httptools

from proxy.http.headers import Header

LONGEST_HEAD = 256 * 1024  # bytes of status line and headers
BODILESS = (204, 304)
UPGRADED = 101


class UpstreamError(Exception):
    """The model server could not be reached, or broke off. The text says which."""


class Broken(UpstreamError):
    """The connection broke. The text has the system's reason."""


class NotAByte(UpstreamError):
    """The connection ended before an answer began. The text says how."""

    def __init__(
        self, how: str = "the model server closed the connection without an answer"
    ) -> None:
        super().__init__(how)


class Stalled(UpstreamError):
    """The model server sent no byte for as long as a request may wait for one."""


class Unsendable(Exception):
    """A body that still arrives cannot be sent to its end. The text says why."""


class ModelDied(UpstreamError):
    """The model's process ended in mid-answer. The next request starts the model again."""


@attrs.define(eq=False)
class ResponseParser:
    """One response as httptools reports it. Bytes after its end are ignored.

    Attributes:
        status: of the response, or of an interim response.
        headers: of the response, or of an interim response.
        head_done: whether the response's own head has arrived.
        upgraded: whether another protocol follows, whose bytes are passed on as they are.
        done: whether all of the response has arrived.
        keep_alive: whether another exchange may follow on the connection.
        size: bytes that have arrived.
    """

    _method: bytes = b"GET"
    _may_upgrade: bool = False
    _is_coded: bool = attrs.field(default=False, init=False)
    _coding: str = attrs.field(default="", init=False)
    status: int = 0
    headers: list[Header] = attrs.field(factory=list)
    head_done: bool = False
    upgraded: bool = False
    done: bool = False
    keep_alive: bool = False
    size: int = 0
    _body: list[bytes] = attrs.field(factory=list)
    _may_keep: bool = True
    _parser: httptools.HttpResponseParser = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """An answer begins. A second answer means that the connection is out of step."""
        if self.done:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer. Trailers are ignored."""
        if not self.head_done:
            lowered = name.lower()
            self.headers.append((lowered, value))
            self._is_coded |= lowered == b"transfer-encoding"

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if not self.done:
            self.status = self._parser.get_status_code()
            self.upgraded = self.status == UPGRADED and self._may_upgrade
            self.head_done = self.status >= 200 or self.upgraded
            if self._is_coded and self.head_done:
                self._coding = self._coding_beside_chunks()
            if self._method == b"HEAD" or self.status in BODILESS:
                self._finish()

    def _coding_beside_chunks(self) -> str:
        """Return the transfer coding of the body, or nothing if it is only chunked."""
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        found = b", ".join(codings).strip().lower()
        return "" if found in (b"chunked", b"") else found.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """A part of the body, without its framing."""
        if not self.done:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim response before it (RFC 9110, 15.2)."""
        if not self.head_done:
            self.headers.clear()
        elif not self.done and not self.upgraded:
            self._finish()

    def _finish(self) -> None:
        self.done = True
        self.keep_alive = self._may_keep and self._parser.should_keep_alive()

    def feed(self, data: bytes) -> bytes:
        """Take bytes in, and return the part of the body in them."""
        self.size += len(data)
        if self.upgraded:
            return data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.upgraded:
                return data[error.args[0] :]
            self.keep_alive = False
            if not self.done:
                reason = f"the model server's answer is not HTTP: {error}"
                raise UpstreamError(reason) from error
        if not self.head_done and self.size > LONGEST_HEAD:
            raise UpstreamError("the head of the model server's answer is too long")
        if self._coding:
            reason = f"the model server's answer has the transfer coding {self._coding}, "
            raise UpstreamError(f"{reason}which llamadoze does not support")
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def ended(self) -> None:
        """Note that the connection was closed. This ends a body without a length."""
        framed = {name for name, _ in self.headers}
        if not self.head_done or framed & {b"content-length", b"transfer-encoding"}:
            raise UpstreamError("the model server closed the connection in mid-answer")
        self.done = True

    def close_after(self) -> None:
        """Let no other exchange follow on this connection: the request was not sent whole."""
        self._may_keep = self.keep_alive = False
