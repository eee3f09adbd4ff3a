"""Who may ask for what: API keys.

Owns the decision; it is made before anything else of a request is looked at. Whose browser asks is
decided in `origins`.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from configschema import ApiKey, Config
from proxy.http.errors import BadRequest
from proxy.http.headers import (
    CREDENTIALS,
    PROTOCOL_KEY,
    PROTOCOLS,
    Header,
    is_one_of,
    keys_shown,
    without_protocol_key,
)

OPEN_TO_ALL = {"/", "/health", "/wol-health", "/ready", "/favicon.ico"}
REALM = 'Basic realm="llamadoze"'
NO_KEY = ApiKey()


@attrs.frozen
class Keys:
    """The keys that clients must show one of; none lets everybody in."""

    known: dict[bytes, ApiKey]

    @classmethod
    def of(cls, config: Config) -> Keys:
        """Take the configuration's keys."""
        return cls({key.value.encode(): key for key in config.api_keys})

    def check(self, method: str, path: str, headers: Sequence[Header], *, changes: bool) -> ApiKey:
        """Let a request pass or not; return the key that it shows.

        Of the places for a key the first that holds something counts: Basic's password, Bearer,
        ``x-api-key``, ``api-key``, and ``openai-insecure-api-key.KEY`` among a websocket's
        protocols.

        Args:
            method: of the request.
            path: of the request.
            headers: of the request.
            changes: whether it would change something.

        Raises:
            BadRequest: it shows no key, an unknown one, or one that may only look.
        """
        if not self.known or path in OPEN_TO_ALL or method == "OPTIONS":
            return NO_KEY
        shown = keys_shown(headers)
        key = next((found for name in (*CREDENTIALS, PROTOCOLS) if (found := shown.get(name))), b"")
        if not is_one_of(key, self.known):
            what = "the API key is not known" if key else "an API key is required"
            remedy = "send one of apiKeys as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            raise BadRequest(f"{what}; {remedy}", status=401, headers={"WWW-Authenticate": REALM})
        known = self.known[key]
        if known.read and changes:
            name = f" '{known.name}'" if known.name else ""
            text = f"the API key{name} may only read: it asks no model and changes nothing"
            raise BadRequest(text, status=403, code="read_only_key")
        return known

    def without(self, headers: list[Header]) -> list[Header]:
        """Return the headers without our own keys: they are no business of a model server."""
        if not self.known:
            return headers
        kept = (pair for pair in headers if pair[0] not in CREDENTIALS or not self._is_ours(pair))
        return [pair for pair in map(self._protocols_without, kept) if pair != (PROTOCOLS, b"")]

    def _protocols_without(self, header: Header) -> Header:
        name, value = header
        if name != PROTOCOLS or PROTOCOL_KEY not in value:
            return header
        return name, without_protocol_key(value, self.known)

    def _is_ours(self, header: Header) -> bool:
        return any(is_one_of(key, self.known) for key in keys_shown([header]).values())
