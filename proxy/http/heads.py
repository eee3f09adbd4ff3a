"""The heads of requests and responses: what is refused of the one, how the other is written. Pure.

Owns what we do not serve though it could be parsed, and the bytes of a response's head (RFC 9112).
How long the body is, and whether another request may follow, is decided by the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from proxy.http.headers import Header

LONGEST_HEAD = 64 * 1024  # bytes
FRAMING = {b"content-length", b"transfer-encoding"}
NOT_OF_HTTP = (b"upgrade", b"connection")


class Reject(Exception):
    """A request that no application sees: what the client is told, and the status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


TOO_LONG = Reject(431, f"the head has more than {LONGEST_HEAD} bytes")


def size_of_head(target: bytes, headers: Sequence[Header]) -> int:
    """Return how many bytes a request's head has at least."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


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
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version != "1.0"):
        raise Reject(400, "expected one Host header")


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Return a target's path, of a whole address too (RFC 9112, 3.2.2), and its query.

    Raises:
        Reject: it is no address.
    """
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/") and path != b"*":
        try:
            path = urlsplit(path).path or b"/"
        except ValueError as error:
            raise Reject(400, f"the request's target is no address: {error}") from None
    return path, query


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
