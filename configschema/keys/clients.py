"""Keys about access to the daemon: API keys, browsers, names of this machine.

Owns names, types and defaults. `rules/security` checks what must fit together.
"""

from __future__ import annotations

import attrs

from configschema.keys.fields import Count, Seconds, Secret, Section, Share, key

EXPOSED_HEADERS = ("x-request-id", "request-id", "retry-after")
CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Cors(Section):
    """Which pages of other sites may send requests, and what they may read (llama-swap's keys)."""

    allowed_origins: tuple[str, ...] | None = key(
        "origins, each scheme://host[:port], or *; default: * for the model APIs only", None
    )
    allow_credentials: bool = key("whether browsers send cookies and stored credentials", False)
    allowed_methods: tuple[str, ...] = key("methods that pages may use", CORS_METHODS)
    allowed_headers: tuple[str, ...] = key("headers that pages may send; default: all", ())
    exposed_headers: tuple[str, ...] = key("headers that pages may read", EXPOSED_HEADERS)
    max_age: Seconds = key("seconds a browser may cache the answer; 0 is a day", Seconds(0))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Security(Section):
    """Who may use the daemon from a browser."""

    hosts: tuple[str, ...] = key("further names under which clients reach this machine", ())
    cors: Cors | None = key("access of other sites' pages; default: model APIs only", None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApiKey(Section):
    """An API key that clients may show."""

    value: Secret = key("the key itself; required", Secret(""), name="key", repr=False)
    name: str = key("the key's name in the log and in metrics", "")
    read: bool = key("whether the key can only read, and not change anything or use models", False)
    requests_per_minute: Count = key("most requests to models in a minute; 0 is no limit", Count(0))
    in_flight: Count = key("most requests to models at once; 0 is no limit", Count(0))
    share: Share = key("share of turns and places if several keys compete for them", Share(1))

    @property
    def is_limited(self) -> bool:
        """Whether its requests must be counted."""
        return bool(self.requests_per_minute or self.in_flight)
