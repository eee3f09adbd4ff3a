"""Who may ask for what: API keys.

Owns the decision; it is made before anything else of a request is looked at. Whose browser asks is
decided in `origins`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from configschema import ApiKey, Config
from proxy.http.errors import BadRequest
from proxy.http.headers import (
    CREDENTIALS,
    PROTOCOL_KEY,
    PROTOCOLS,
    Header,
    is_one_of,
    key_in,
    without_protocol_key,
)

OPEN_TO_ALL = {"/", "/health", "/wol-health", "/ready", "/favicon.ico"}
REALM = 'Basic realm="llamadoze"'
NO_KEY = ApiKey()
PLACES = (*CREDENTIALS, PROTOCOLS)
"""In the order in which they are looked at."""
WITH_KEYS = frozenset(PLACES)


@attrs.frozen
class Keys:
    """The keys that clients must show one of; none lets everybody in."""

    known: dict[bytes, ApiKey]

    @classmethod
    def of(cls, config: Config) -> Keys:
        """Take the configuration's keys."""
        return cls({key.value.encode(): key for key in config.api_keys})

    def check(
        self, method: str, path: str, fields: Mapping[bytes, bytes], *, changes: bool
    ) -> ApiKey:
        """Let a request pass or not; return the key that it shows.

        Of the places for a key the first that holds something counts: Basic's password, Bearer,
        ``x-api-key``, ``api-key``, and ``openai-insecure-api-key.KEY`` among a websocket's
        protocols. Of a header that is repeated, the first counts.

        Args:
            method: of the request.
            path: of the request.
            fields: the first value of each of its headers.
            changes: whether it would change something.

        Raises:
            BadRequest: it shows no key, an unknown one, or one that may only look.
        """
        if not self.known or path in OPEN_TO_ALL or method == "OPTIONS":
            return NO_KEY
        key = b""
        for name in PLACES:
            if name in fields and (key := key_in(name, fields[name])):
                break
        if not is_one_of(key, self.known):
            what = "the API key is not known" if key else "an API key is required"
            remedy = "send one of apiKeys as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            raise BadRequest(f"{what}; {remedy}", status=401, headers={"WWW-Authenticate": REALM})
        known = self.known[key]
        if known.read and changes:
            whose = f" '{known.name}'" if known.name else ""
            text = f"the API key{whose} may only read: it asks no model and changes nothing"
            raise BadRequest(text, status=403, code="read_only_key")
        return known

    def without(self, headers: list[Header], fields: Mapping[bytes, bytes]) -> list[Header]:
        """Return the headers without our own keys: they are no business of a model server.

        Args:
            headers: all of them.
            fields: the first value of each.
        """
        if not self.known:
            return headers
        kept = [pair for pair in headers if pair[0] not in WITH_KEYS or not self._is_ours(*pair)]
        if PROTOCOLS in fields:
            kept = [self._protocols_without(*pair) for pair in kept]
        return kept

    def _is_ours(self, name: bytes, value: bytes) -> bool:
        """Whether a header shows a key of ours, and nothing else."""
        if name == PROTOCOLS and PROTOCOL_KEY in value:
            return not without_protocol_key(value, self.known)
        return is_one_of(key_in(name, value), self.known)

    def _protocols_without(self, name: bytes, value: bytes) -> Header:
        if name != PROTOCOLS or PROTOCOL_KEY not in value:
            return name, value
        return name, without_protocol_key(value, self.known)
