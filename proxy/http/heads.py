"""The heads of requests and responses: what is refused of the one, how the other is written. Pure.

Owns what we do not serve though it could be parsed, and the bytes of a response's head (RFC 9112).
How long the body is, and whether another request may follow, is decided by the exchange.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from proxy.http.headers import Header

LONGEST_HEAD = 64 * 1024  # bytes
MOST_HEADERS = 2000
# RFC 9112, 3.2 with RFC 3986, 3.2.2: a name, an IPv4 address, or an IPv6 address; and a port.
HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?"
)
FRAMING = {b"content-length", b"transfer-encoding"}
NOT_OF_HTTP = (b"upgrade", b"connection")


class Reject(Exception):
    """A request that no application sees: what the client is told, and the status."""

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


def check_head(version: str, target: bytes, headers: Sequence[Header], *, is_raw: bool) -> None:
    """Refuse what the parser lets through and we do not serve.

    Args:
        version: of HTTP.
        target: what the request is for.
        headers: all of them.
        is_raw: whether another protocol's bytes follow.

    Raises:
        Reject: the framing could be read in two ways, or the host is missing.
    """
    if version not in ("1.0", "1.1"):
        raise Reject(505, f"HTTP/{version} is not spoken here")
    if b"#" in target:
        raise Reject(400, "a target has no fragment")
    if is_raw and any(name in FRAMING for name, _ in headers):
        raise Reject(400, "the request for a websocket has no body")
    coding = [value for name, value in headers if name == b"transfer-encoding"]
    if coding and (len(coding) > 1 or coding[0].lower() != b"chunked"):
        raise Reject(501, "the only transfer coding is chunked")
    if coding and version == "1.0":
        raise Reject(400, "HTTP/1.0 has no transfer coding")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise Reject(400, "expected one Host header")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Reject(400, "the Host header holds what no host has")


def read_target(target: bytes, headers: list[Header]) -> tuple[bytes, bytes, list[Header]]:
    """Return a target's path, its query, and the headers that go with it.

    A whole address has a host of its own, which counts instead of the header's (RFC 9112, 3.2.2).

    Raises:
        Reject: it is no address.
    """
    path, _, query = target.partition(b"?")
    if path.startswith(b"/") or path == b"*":
        return path, query, headers
    try:
        parts = urlsplit(path)
    except ValueError as error:
        raise Reject(400, f"the request's target is no address: {error}") from None
    host = parts.netloc.rpartition(b"@")[2]
    if not HOST.fullmatch(host):
        raise Reject(400, "the request's target has a host that none can be")
    others = [pair for pair in headers if pair[0] != b"host"]
    return parts.path or b"/", query, [(b"host", host), *others] if host else headers


def request_head(
    method: str, target: bytes, version: str, headers: Sequence[Header], *, keep_alive: bool
) -> bytes:
    """Return a request's head as if no other protocol had been asked for."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), target, version.encode())]
    if not keep_alive:
        lines.append(b"connection: close")
    lines += [b"%b: %b" % pair for pair in headers if pair[0] not in NOT_OF_HTTP]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def response_head(status: int, headers: Sequence[Header], framing: Sequence[bytes]) -> bytes:
    """Return a response's head.

    Args:
        status: its status.
        headers: of the application.
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
    return formatdate(second, usegmt=True).encode()
