"""The heads of requests and responses: what is refused, how targets are read, how both are written.

Owns what we do not serve though it could be parsed, and the bytes of heads (RFC 9112). How long a
response's body is, and whether another request may follow, is decided by the exchange. No I/O.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit
from wsgiref.handlers import format_date_time  # a MiB less than what email.utils brings

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


# Percent-encoding (RFC 3986, 2.1) is decoded in C: what urllib does of 60 KB takes 30 ms.
ESCAPE = re.compile(rb"%(?=[0-9A-Fa-f]{2})")


class Reject(Exception):
    """A request that nobody else sees: what the client is told, and the status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


TOO_LONG = Reject(431, f"the head has more than {LONGEST_HEAD} bytes")
TOO_MANY = Reject(431, f"the head has more than {MOST_HEADERS} headers")


def size_of_head(target: bytes, headers: Sequence[Header]) -> int:
    """Return how many bytes a request's head has at least."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def too_large(size: int, target: bytes, headers: Sequence[Header]) -> Reject | None:
    """Return why a head is refused for its size, if it is.

    Args:
        size: of all that has arrived, some of which may be the body's.
        target: what the request is for.
        headers: all of them, or more than there may be.
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
    """Refuse what the parser lets through and we do not serve.

    Args:
        version: of HTTP.
        target: what the request is for.
        headers: all of them.
        fields: the first value of each.
        is_raw: whether another protocol's bytes follow.

    Raises:
        Reject: the framing could be read in two ways, or the host is missing.
    """
    if version not in ("1.0", "1.1"):
        raise Reject(505, f"HTTP/{version} is not spoken here")
    if b"#" in target:
        raise Reject(400, "a target has no fragment")
    if is_raw and not FRAMING.isdisjoint(fields):
        raise Reject(400, "the request for a websocket has no body")
    repeated = _repeated(headers) if len(fields) < len(headers) else frozenset()
    coding, host = fields.get(b"transfer-encoding"), fields.get(b"host")
    if coding is not None:
        if b"transfer-encoding" in repeated or coding.lower() != b"chunked":
            raise Reject(501, "the only transfer coding is chunked")
        if version == "1.0":
            raise Reject(400, "HTTP/1.0 has no transfer coding")
    if b"host" in repeated or (host is None and version != "1.0"):
        raise Reject(400, "expected one Host header")
    if host is not None and not HOST.fullmatch(host):
        raise Reject(400, "the Host header holds what no host has")


def _repeated(headers: Sequence[Header]) -> frozenset[bytes]:
    counts = Counter(name for name, _ in headers)
    return frozenset(name for name, count in counts.items() if count > 1)


def read_target(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a target's path, its query, and its host if it is a whole address.

    That host counts instead of the header's (RFC 9112, 3.2.2).

    Raises:
        Reject: it is no address.
    """
    path, _, query = target.partition(b"?")
    if path.startswith(b"/") or path == b"*":
        return path, query, b""
    try:
        parts = urlsplit(path)
    except ValueError as error:
        raise Reject(400, f"the request's target is no address: {error}") from None
    host = parts.netloc.rpartition(b"@")[2]
    if not HOST.fullmatch(host):
        raise Reject(400, "the request's target has a host that none can be")
    return parts.path or b"/", query, host


def request_head(
    method: str, target: bytes, version: str, headers: Sequence[Header], *, keep_alive: bool
) -> bytes:
    """Return a request's head as if no other protocol had been asked for."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), target, version.encode())]
    if not keep_alive:
        lines.append(b"connection: close")
    lines += [b"%b: %b" % pair for pair in headers if pair[0] not in NOT_OF_HTTP]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@attrs.frozen(kw_only=True)
class Request:
    """What is sent to a server.

    Attributes:
        method: as it goes on the wire, as all else.
        target: path and query, below the origin's base path.
        headers: without Content-Length and Transfer-Encoding, which are made here.
        body: all of it, or what it is read from.
        may_upgrade: whether the server may answer with another protocol.
    """

    method: bytes
    target: bytes
    headers: Sequence[Header]
    body: Held | Upload = b""
    may_upgrade: bool = False

    def head(self, base_path: str) -> bytes:
        """Return its first line and headers."""
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
        status: its status.
        headers: of the answer.
        framing: lines of ours, about the body's length and the connection.
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


@lru_cache(8)  # one request's path is read by several
def unescaped(raw: bytes) -> bytes:
    """Return what is written with escapes; what is none stays as it is."""
    if b"%" not in raw:
        return raw
    python = ESCAPE.sub(rb"\\x", raw.replace(b"\\", b"\\\\"))
    return python.decode("unicode_escape").encode("latin-1")


def as_text(raw: bytes) -> str:
    """Return it as text; bytes that are no UTF-8 are replaced."""
    return unescaped(raw).decode("utf-8", "replace")
