"""Keys of the file about who may use the daemon: API keys, browsers, names of this machine.

Owns names, types and defaults. What must fit together is in `rules/security`.
"""

from __future__ import annotations

import attrs

from configschema.keys.fields import Count, Seconds, Secret, Section, Share, key

EXPOSED_HEADERS = ("x-request-id", "request-id", "retry-after")
CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Cors(Section):
    """Which pages of other sites may ask, and what they may read (llama-swap's keys)."""

    allowed_origins: tuple[str, ...] | None = key(
        "each scheme://host[:port], or *; without any, * for the model APIs alone", None
    )
    allow_credentials: bool = key("whether browsers send cookies and keys they keep", False)
    allowed_methods: tuple[str, ...] = key("methods that a page may use", CORS_METHODS)
    allowed_headers: tuple[str, ...] = key("headers that a page may send; without any, all", ())
    exposed_headers: tuple[str, ...] = key("headers that a page may read", EXPOSED_HEADERS)
    max_age: Seconds = key("seconds a browser may keep the answer; 0 is a day", Seconds(0))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Security(Section):
    """Who may use the daemon by way of a browser."""

    hosts: tuple[str, ...] = key("names by which this machine is asked, beside its own", ())
    cors: Cors | None = key("pages of other sites; without it, any may use the model APIs", None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApiKey(Section):
    """A key that clients may show."""

    value: Secret = key("what they show; required", Secret(""), name="key", repr=False)
    name: str = key("what it is called in the log and in metrics", "")
    read: bool = key("whether it may only look: it changes nothing and asks no model", False)
    requests_per_minute: Count = key("requests to models in any minute; 0 is no limit", Count(0))
    in_flight: Count = key("requests to models at once; 0 is no limit", Count(0))
    share: Share = key("of turns and places, where several keys want them", Share(1))

    @property
    def is_limited(self) -> bool:
        """Whether somebody must count its requests."""
        return bool(self.requests_per_minute or self.in_flight)
