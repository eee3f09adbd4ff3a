"""Which headers go on, and which belong to one connection only (RFC 9110, 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FRAMING = frozenset({b"content-length", b"expect"})


def to_upstream(headers: Iterable[Header], client: str | None) -> list[Header]:
    """Return a client's headers as they go to a model server.

    The framing is left out, since the body's bytes are framed anew; the client's address is added
    to ``X-Forwarded-For``, as llama-swap does.
    """
    given = list(headers)
    kept = [pair for pair in _end_to_end(given) if pair[0] not in FRAMING]
    chain = [value for name, value in kept if name == b"x-forwarded-for"]
    kept = [pair for pair in kept if pair[0] != b"x-forwarded-for"]
    if client:
        chain.append(client.encode("latin-1", "replace"))
    return [*kept, (b"x-forwarded-for", b", ".join(chain))] if chain else kept


def to_client(headers: Iterable[Header]) -> list[Header]:
    """Return a model server's headers as they go to the client.

    ``Date`` is ours to write. An event stream asks proxies on its way not to hold it back.
    """
    kept = [pair for pair in _end_to_end(headers) if pair[0] != b"date"]
    if is_event_stream(kept) and b"x-accel-buffering" not in dict(kept):
        kept.append((b"x-accel-buffering", b"no"))
    return kept


def is_event_stream(headers: Sequence[Header]) -> bool:
    """Whether the body is a stream of server-sent events."""
    kind = dict(headers).get(b"content-type", b"")
    return kind.lower().startswith(b"text/event-stream")


def _end_to_end(headers: Iterable[Header]) -> list[Header]:
    lowered = [(name.lower(), value) for name, value in headers]
    named = b",".join(value for name, value in lowered if name == b"connection")
    dropped = HOP_BY_HOP | {token.strip().lower() for token in named.split(b",")}
    return [pair for pair in lowered if pair[0] not in dropped]
