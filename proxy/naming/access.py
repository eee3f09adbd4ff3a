"""API keys: which requests a client may send.

Owns the decision, which comes before all other handling of a request. `origins` decides about
requests from browsers.
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
"""The headers that may contain a key, in the order in which they are read."""
WITH_KEYS = frozenset(PLACES)


@attrs.frozen
class Keys:
    """The API keys. A client must send one of them; without keys, every client is let in."""

    known: dict[bytes, ApiKey]

    @classmethod
    def of(cls, config: Config) -> Keys:
        """Take the configuration's keys."""
        return cls({key.value.encode(): key for key in config.api_keys})

    def check(
        self, method: str, path: str, fields: Mapping[bytes, bytes], *, changes: bool
    ) -> ApiKey:
        """Check whether a request may pass, and return its key.

        The first of these places that contains a key counts: Basic's password, Bearer,
        ``x-api-key``, ``api-key``, and ``openai-insecure-api-key.KEY`` among a websocket's
        protocols. If a header is repeated, its first value counts.

        Args:
            method: of the request.
            path: of the request.
            fields: the first value of each header of the request.
            changes: whether the request would change something or use a model.

        Raises:
            BadRequest: the request has no key, an unknown key, or a key that may only read.
        """
        if not self.known or path in OPEN_TO_ALL or method == "OPTIONS":
            return NO_KEY
        key = b""
        for name in PLACES:
            if name in fields and (key := key_in(name, fields[name])):
                break
        if not is_one_of(key, self.known):
            what = "the API key is unknown" if key else "an API key is required"
            remedy = "send a key of apiKeys as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            raise BadRequest(f"{what}: {remedy}", status=401, headers={"WWW-Authenticate": REALM})
        known = self.known[key]
        if known.read and changes:
            whose = f" '{known.name}'" if known.name else ""
            text = f"the API key{whose} may only read: it cannot use models or change anything"
            raise BadRequest(text, status=403, code="read_only_key")
        return known

    def without(self, headers: list[Header], fields: Mapping[bytes, bytes]) -> list[Header]:
        """Return the headers without llamadoze's keys, which model servers must not see.

        Args:
            headers: all headers.
            fields: the first value of each header.
        """
        if not self.known:
            return headers
        kept = [pair for pair in headers if pair[0] not in WITH_KEYS or not self._is_ours(*pair)]
        if PROTOCOLS in fields:
            kept = [self._protocols_without(*pair) for pair in kept]
        return kept

    def _is_ours(self, name: bytes, value: bytes) -> bool:
        """Whether a header contains one of llamadoze's keys, and nothing else."""
        if name == PROTOCOLS and PROTOCOL_KEY in value:
            return not without_protocol_key(value, self.known)
        return is_one_of(key_in(name, value), self.known)

    def _protocols_without(self, name: bytes, value: bytes) -> Header:
        if name != PROTOCOLS or PROTOCOL_KEY not in value:
            return name, value
        return name, without_protocol_key(value, self.known)
