"""Which headers are passed on to model servers, peers and clients, and which contain keys.

Owns these rules (RFC 9110, 7.6.1). All names are in lower case.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping, Sequence

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORWARDED_FOR = b"x-forwarded-for"
REQUEST_ID = b"x-request-id"
VIA = b"via"
NOT_SENT_ON = HOP_BY_HOP | {b"content-length", b"expect", REQUEST_ID, VIA}
CREDENTIALS = (b"authorization", b"x-api-key", b"api-key")  # the last one is Azure's
PROTOCOLS = b"sec-websocket-protocol"
PROTOCOL_KEY = b"openai-insecure-api-key."  # browsers set no other header on websockets
ANTHROPICS_ID = b"request-id"
OURS_TO_SAY = HOP_BY_HOP | {b"date", REQUEST_ID, ANTHROPICS_ID}
CORS = b"access-control-"


def to_upstream(
    headers: Sequence[Header], client: str | None, request_id: bytes = b"", via: bytes = b""
) -> list[Header]:
    """Return a client's headers as they go to a model server.

    The framing is left out, since the body is framed again. The client's address is added to
    ``X-Forwarded-For``, as llama-swap does.
    """
    fields = first_values(headers)
    kept = _end_to_end(headers, fields, NOT_SENT_ON)
    came_by = b""
    if FORWARDED_FOR in fields:
        came_by = b", ".join([value for name, value in kept if name == FORWARDED_FOR])
        kept = [pair for pair in kept if pair[0] != FORWARDED_FOR]
    if client:
        ours = client.encode("latin-1", "replace")
        came_by = b"%b, %b" % (came_by, ours) if came_by else ours
    if came_by:
        kept.append((FORWARDED_FOR, came_by))
    if request_id:
        kept.append((REQUEST_ID, request_id))
    if via:
        kept.append((VIA, via))
    return kept


def to_peer(
    headers: Sequence[Header], authority: str, key: str, request_id: bytes, via: bytes
) -> list[Header]:
    """Return a client's headers for a peer: the peer's host and key, and no client's address."""
    replaced = {b"host", *(CREDENTIALS if key else ())}
    kept = [
        pair
        for pair in _end_to_end(headers, first_values(headers), NOT_SENT_ON)
        if pair[0] not in replaced and not pair[0].startswith(b"x-forwarded-")
    ]
    kept += [(b"host", authority.encode()), (REQUEST_ID, request_id), (VIA, via)]
    if key:
        kept += [(b"authorization", b"Bearer " + key.encode()), (b"x-api-key", key.encode())]
    return kept


def to_client(
    headers: Sequence[Header],
    fields: Mapping[bytes, bytes],
    request_id: bytes,
    ours: Iterable[Header] = (),
) -> list[Header]:
    """Return a model server's headers as they go to the client.

    llamadoze writes ``Date`` and the CORS headers itself. A header on event streams asks proxies on
    the way not to buffer them.

    Args:
        headers: the model server's headers.
        fields: the first value of each header.
        request_id: the request's id.
        ours: headers to add, for CORS.
    """
    kept = _end_to_end(headers, fields, OURS_TO_SAY)
    kept = [pair for pair in kept if not pair[0].startswith(CORS)]
    if b"x-accel-buffering" not in fields and is_event_stream(fields):
        kept.append((b"x-accel-buffering", b"no"))
    kept += ((REQUEST_ID, request_id), (ANTHROPICS_ID, request_id), *ours)
    return kept


def ids(request_id: bytes) -> list[Header]:
    """Return the headers that name the request of an answer. The second is Anthropic's."""
    return [(REQUEST_ID, request_id), (ANTHROPICS_ID, request_id)]


def is_event_stream(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the body is a stream of server-sent events."""
    return fields.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def first_values(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Return the first value of each header."""
    return dict(reversed(headers))


def value_of(headers: Iterable[Header], name: bytes) -> bytes:
    """Return a header's first value, or nothing if the header is missing."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def _end_to_end(
    headers: Sequence[Header], fields: Mapping[bytes, bytes], dropped: frozenset[bytes]
) -> list[Header]:
    if b"connection" in fields:
        said = b",".join([value for name, value in headers if name == b"connection"])
        dropped = dropped.union(token.strip().lower() for token in said.split(b","))
    return [pair for pair in headers if pair[0] not in dropped]


def key_in(name: bytes, value: bytes) -> bytes:
    """Return the key in a header, or nothing if there is none.

    In ``Authorization``, the key is the password of Basic, or the text after Bearer.
    """
    if name == PROTOCOLS:
        keys = (one for one in _tokens(value) if one.startswith(PROTOCOL_KEY))
        return next(keys, b"").removeprefix(PROTOCOL_KEY)
    if name != b"authorization":
        return value
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    return _password(rest.strip()) if scheme.lower() == b"basic" else b""


def without_protocol_key(value: bytes, keys: Iterable[bytes]) -> bytes:
    """Return a websocket's protocols without any of llamadoze's own keys."""
    ours = [PROTOCOL_KEY + key for key in keys]
    return b", ".join(one for one in _tokens(value) if not is_one_of(one, ours))


def _tokens(value: bytes) -> list[bytes]:
    return [one.strip() for one in value.split(b",")]


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def is_one_of(key: bytes, keys: Iterable[bytes]) -> bool:
    """Whether a key is among the keys. The time that this takes reveals nothing of the keys."""
    found = False
    for known in keys:
        found |= hmac.compare_digest(key, known)
    return found
