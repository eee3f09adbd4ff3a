"""The heads of requests and responses: what is refused, how targets are read, how both are written.

Owns which valid requests llamadoze does not serve, and the bytes of heads (RFC 9112). The exchange
decides how long a response's body is and whether another request may follow. Does no I/O.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit
from wsgiref.handlers import format_date_time  # takes 1 MiB less memory than email.utils

import attrs

from proxy.http.bodies import Held, Upload
from proxy.http.headers import Header

LONGEST_HEAD = 64 * 1024  # bytes
MOST_HEADERS = 2000
# RFC 9112, 3.2 with RFC 3986, 3.2.2: a name, an IPv4 address, or an IPv6 address; and a port.
HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?"
)
FRAMING = {b"content-length", b"transfer-encoding"}
NOT_OF_HTTP = (b"upgrade", b"connection")


# Percent-encoding (RFC 3986, 2.1) is decoded in C: urllib takes 30 ms for 60 KB.
ESCAPE = re.compile(rb"%(?=[0-9A-Fa-f]{2})")


class Reject(Exception):
    """A request that is refused at once: the status, and the message to the client."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


TOO_LONG = Reject(431, f"the head of the request has more than {LONGEST_HEAD} bytes")
TOO_MANY = Reject(431, f"the request has more than {MOST_HEADERS} headers")


def size_of_head(target: bytes, headers: Sequence[Header]) -> int:
    """Return the least number of bytes that a request's head has."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def too_large(size: int, target: bytes, headers: Sequence[Header]) -> Reject | None:
    """Return why a head is refused for its size, if it is.

    Args:
        size: bytes that have arrived, including any of the body.
        target: the request's target.
        headers: all headers, or more than the limit.
    """
    if len(headers) > MOST_HEADERS:
        return TOO_MANY
    if size > LONGEST_HEAD and size_of_head(target, headers) > LONGEST_HEAD:
        return TOO_LONG
    return None


def check_head(
    version: str,
    target: bytes,
    headers: Sequence[Header],
    fields: Mapping[bytes, bytes],
    *,
    is_raw: bool,
) -> None:
    """Refuse requests that the parser accepts and llamadoze does not serve.

    Args:
        version: of HTTP.
        target: the request's target.
        headers: all headers.
        fields: the first value of each header.
        is_raw: whether another protocol's bytes follow.

    Raises:
        Reject: the framing could be read in two ways, or the host is missing.
    """
    if version not in ("1.0", "1.1"):
        raise Reject(505, f"HTTP/{version} is not supported: use HTTP/1.0 or HTTP/1.1")
    if b"#" in target:
        raise Reject(400, "the request's target must not have a fragment (#)")
    if is_raw and not FRAMING.isdisjoint(fields):
        raise Reject(400, "a request for a websocket must not have a body")
    repeated = _repeated(headers) if len(fields) < len(headers) else frozenset()
    coding, host = fields.get(b"transfer-encoding"), fields.get(b"host")
    if coding is not None:
        if b"transfer-encoding" in repeated or coding.lower() != b"chunked":
            raise Reject(501, "the only supported transfer coding is chunked")
        if version == "1.0":
            raise Reject(400, "a request of HTTP/1.0 must not have a transfer coding")
    if b"host" in repeated or (host is None and version != "1.0"):
        raise Reject(400, "the request must have exactly one Host header")
    if host is not None and not HOST.fullmatch(host):
        raise Reject(400, "the Host header is not a valid host")


def _repeated(headers: Sequence[Header]) -> frozenset[bytes]:
    counts = Counter(name for name, _ in headers)
    return frozenset(name for name, count in counts.items() if count > 1)


def read_target(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a target's path, its query, and its host if the target is a whole address.

    That host replaces the one in the Host header (RFC 9112, 3.2.2).

    Raises:
        Reject: the target is not a valid address.
    """
    path, _, query = target.partition(b"?")
    if path.startswith(b"/") or path == b"*":
        return path, query, b""
    try:
        parts = urlsplit(path)
    except ValueError as error:
        raise Reject(400, f"the request's target is not a valid address: {error}") from None
    host = parts.netloc.rpartition(b"@")[2]
    if not HOST.fullmatch(host):
        raise Reject(400, "the host in the request's target is not valid")
    return parts.path or b"/", query, host


def request_head(
    method: str, target: bytes, version: str, headers: Sequence[Header], *, keep_alive: bool
) -> bytes:
    """Return a request's head without the headers that ask for another protocol."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), target, version.encode())]
    if not keep_alive:
        lines.append(b"connection: close")
    lines += [b"%b: %b" % pair for pair in headers if pair[0] not in NOT_OF_HTTP]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@attrs.frozen(kw_only=True)
class Request:
    """A request to a server.

    Attributes:
        method: in bytes, as it is sent.
        target: path and query, below the origin's base path.
        headers: without Content-Length and Transfer-Encoding, which `head` adds.
        body: the whole body, or the upload that it is read from.
        may_upgrade: whether the server may answer with another protocol.
    """

    method: bytes
    target: bytes
    headers: Sequence[Header]
    body: Held | Upload = b""
    may_upgrade: bool = False

    def head(self, base_path: str) -> bytes:
        """Return the first line and the headers."""
        target = base_path.encode() + self.target if base_path else self.target
        lines = [b"%b %b HTTP/1.1" % (self.method, target)]
        lines += [b"%b: %b" % header for header in self.headers]
        length = len(self.body) if isinstance(self.body, Held) else self.body.length
        if length is None:
            lines.append(b"transfer-encoding: chunked")
        elif length or self.method not in (b"GET", b"HEAD"):
            lines.append(b"content-length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"


def response_head(status: int, headers: Sequence[Header], framing: Sequence[bytes]) -> bytes:
    """Return a response's head.

    Args:
        status: the response's status.
        headers: the headers of the answer.
        framing: lines about the body's length and the connection.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, _phrase(status)), b"date: " + _date(int(time.time()))]
    lines += [b"%b: %b" % header for header in headers]
    lines += framing
    return b"\r\n".join(lines) + b"\r\n\r\n"


@lru_cache(64)
def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


@lru_cache(1)
def _date(second: int) -> bytes:
    return format_date_time(second).encode()


@lru_cache(8)  # several functions read one request's path
def unescaped(raw: bytes) -> bytes:
    """Return a text with its escapes decoded. Invalid escapes stay as they are."""
    if b"%" not in raw:
        return raw
    python = ESCAPE.sub(rb"\\x", raw.replace(b"\\", b"\\\\"))
    return python.decode("unicode_escape").encode("latin-1")


def as_text(raw: bytes) -> str:
    """Return decoded bytes as text. Bytes that are not UTF-8 are replaced."""
    return unescaped(raw).decode("utf-8", "replace")
