"""Who may ask for what: API keys, and what browsers ask before they ask (CORS).

Owns the decisions; they are made before anything else of a request is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from proxy.http.errors import EVERYBODY, BadRequest
from proxy.http.headers import CREDENTIALS, Header, is_one_of, keys_shown, value_of

OPEN_TO_ALL = {"/", "/health", "/wol-health", "/ready", "/favicon.ico"}
REALM = 'Basic realm="llamadoze"'
METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
USUAL_HEADERS = b"Content-Type, Authorization, Accept, X-Requested-With"
HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
A_DAY = b"86400"


@attrs.frozen
class Keys:
    """The keys that clients must show one of; none lets everybody in."""

    known: tuple[bytes, ...]

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """Take the configuration's keys."""
        return cls(tuple(key.encode() for key in keys))

    def check(self, method: str, path: str, headers: Sequence[Header]) -> None:
        """Let a request pass or not. Basic comes first, then Bearer, then ``x-api-key``.

        Raises:
            BadRequest: it shows no key, or an unknown one.
        """
        if not self.known or path in OPEN_TO_ALL or method == "OPTIONS":
            return
        shown = keys_shown(headers)
        key = shown.get(b"authorization") or shown.get(b"x-api-key") or b""
        if not is_one_of(key, self.known):
            what = "the API key is not known" if key else "an API key is required"
            remedy = "send one of apiKeys as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            raise BadRequest(f"{what}; {remedy}", status=401, headers={"WWW-Authenticate": REALM})

    def without(self, headers: list[Header]) -> list[Header]:
        """Return the headers without our own keys: they are no business of a model server."""
        if not self.known:
            return headers
        return [pair for pair in headers if pair[0] not in CREDENTIALS or not self._is_ours(pair)]

    def _is_ours(self, header: Header) -> bool:
        return any(is_one_of(key, self.known) for key in keys_shown([header]).values())


def preflight(headers: Sequence[Header]) -> list[Header]:
    """Return what allows a browser to send its request, as llama-swap does (Fetch, 3.2)."""
    asked = value_of(headers, b"access-control-request-headers").split(b",")
    names = [name.strip() for name in asked if HEADER_NAME.fullmatch(name.strip())]
    return [
        *EVERYBODY,
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", b", ".join(names) or USUAL_HEADERS),
        (b"access-control-max-age", A_DAY),
    ]
