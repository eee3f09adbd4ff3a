"""Requests from browsers: allowed names of this machine, and allowed pages of other sites.

Owns the decisions about Host, Origin and Sec-Fetch-Site, and the headers of CORS (Fetch, 3.2). A
program that is not a browser sends neither Origin nor Sec-Fetch-Site, and is let through.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from configschema import Config, Cors
from proxy.http.errors import BadRequest
from proxy.http.headers import Header

OF_BROWSERS = frozenset(
    {
        b"origin",
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"sec-fetch-dest",
        b"upgrade",
        b"referer",
    }
)
HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
FOLLOWED = (b"navigate", b"document")
USUAL_HEADERS = b"Content-Type, Authorization, Accept, X-Requested-With"
A_DAY = 86400
LONGEST_NAME = 255  # bytes of a host's name (RFC 1035, 2.3.4); longer names are not cached
BY_NAME = " by name (* does not apply to websockets)"
ANY = "*"
OF_CONTAINERS = ("host.docker.internal", "host.containers.internal")
"""Names by which a container reaches the machine that it runs on."""


@attrs.frozen
class Visitor:
    """What a request tells of its sender.

    Attributes:
        origin: the origin of the page that sent the request; empty if there is none.
        page: the page's address; browsers send it also without an origin, such as for an image.
        is_part: whether the request is for a part of a page, such as an image, without a click.
        site: how the page's site relates to ours, as the browser states it (Fetch Metadata).
        host: the requested host name, with its port.
        is_websocket: whether the request asks for a websocket.
        is_link: whether a user follows a link, so that the answer replaces the page.
    """

    origin: str = ""
    site: str = ""
    host: str = ""
    is_websocket: bool = False
    is_link: bool = False
    page: str = ""
    is_part: bool = False

    @classmethod
    def of(cls, said: Mapping[bytes, bytes]) -> Visitor:
        """Read a visitor from the headers of a request."""
        host = said.get(b"host", b"")
        if OF_BROWSERS.isdisjoint(said):
            return (
                _of_program(host) if len(host) <= LONGEST_NAME else cls(host=host.decode("latin-1"))
            )
        return cls(
            said.get(b"origin", b"").decode("latin-1").strip(),
            said.get(b"sec-fetch-site", b"").decode("latin-1"),
            host.decode("latin-1"),
            said.get(b"upgrade", b"").lower() == b"websocket",
            (said.get(b"sec-fetch-mode"), said.get(b"sec-fetch-dest")) == FOLLOWED,
            said.get(b"referer", b"").decode("latin-1"),
            said.get(b"sec-fetch-dest", b"empty") not in (b"empty", b"document"),
        )

    @property
    def is_from_here(self) -> bool:
        """Whether no page of another site sent the request. All ports of this machine are one
        site."""
        if not (self.origin or self.page):
            return self.site != "cross-site"
        return _is_same_site(self.origin or self.page, self.host)


@lru_cache(256)
def _of_program(host: bytes) -> Visitor:
    """Return the visitor for a program that is not a browser, of which only the host is known."""
    return Visitor(host=host.decode("latin-1"))


@attrs.frozen
class Guard:
    """The rules of one configuration.

    Attributes:
        cors: the operator's settings for pages of other sites; None for the defaults.
        hosts: names that requests may use for this machine, in lower case.
        is_open: whether the daemon is open to all, since there are no keys.
        own_sites: names of ``security.hosts``: their pages are ours, whatever Host a proxy sends.
    """

    cors: Cors | None
    hosts: frozenset[str]
    is_open: bool
    own_sites: frozenset[str] = frozenset()
    _origins: dict[str, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        listed = (self.cors.allowed_origins if self.cors else None) or ()
        object.__setattr__(self, "_origins", {one.lower(): one for one in listed})

    @classmethod
    def of(cls, config: Config) -> Guard:
        """Take the configuration's rules."""
        names = (*config.security.hosts, socket.gethostname(), *OF_CONTAINERS)
        hosts = frozenset(map(_name_of, names))
        own_sites = frozenset(map(_name_of, config.security.hosts))
        return cls(config.security.cors, hosts, not config.api_keys, own_sites)

    def admit(self, visitor: Visitor, local: str, *, changes: bool, shared: bool) -> None:
        """Check whether a request may pass.

        Args:
            visitor: the sender of the request.
            local: llamadoze's address at which the request arrived.
            changes: whether the request would change something.
            shared: whether the request is for the model APIs, which other sites may use unless
                ``security.cors`` forbids it.

        Raises:
            BadRequest: the page may not send this request, or the host is not allowed.
        """
        if self.is_open and visitor.host and _is_loopback(local):
            self._check_host(visitor.host)
        if self._is_own(visitor) or visitor.origin.lower() in self._origins:
            return
        is_listed = shared and visitor.origin and self._allows_any
        if (
            visitor.is_websocket
            or (changes and not is_listed)
            or (shared and visitor.origin and not is_listed)
        ):
            whose = visitor.origin or "another site"
            way = f"security.cors.allowedOrigins can allow it{BY_NAME * visitor.is_websocket}"
            text = f"a page of {whose} may not send this request: {way}"
            raise BadRequest(text, status=403, code="origin_not_allowed")

    def _is_own(self, visitor: Visitor) -> bool:
        return visitor.is_from_here or _host_of(visitor.origin or visitor.page) in self.own_sites

    @property
    def _allows_any(self) -> bool:
        return not self._origins or ANY in self._origins

    def _check_host(self, host: str) -> None:
        if not _means_us(host, self.hosts):
            name = _name_of(host)
            text = f"'{name}' is not a known name of this machine: security.hosts can allow it"
            raise BadRequest(text, status=403, code="host_not_allowed")

    def headers_for(self, visitor: Visitor, *, shared: bool) -> list[Header]:
        """Return the CORS headers of an answer.

        Args:
            visitor: the sender of the request.
            shared: whether the answer belongs to the model APIs.
        """
        if not visitor.origin:
            return []
        vary = (b"vary", b"Origin")
        allowed = self._allowed(visitor, shared=shared)
        if not allowed:
            return [vary]
        rules = self.cors or Cors()
        found = [(b"access-control-allow-origin", allowed.encode("latin-1", "replace")), vary]
        if rules.allow_credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if rules.exposed_headers:
            shown = ", ".join(rules.exposed_headers).encode()
            found.append((b"access-control-expose-headers", shown))
        return found

    def _allowed(self, visitor: Visitor, *, shared: bool) -> str:
        if listed := self._origins.get(visitor.origin.lower()):
            return listed
        if ANY in self._origins or (not self._origins and shared):
            return ANY
        return visitor.origin if not self._origins and self._is_own(visitor) else ""

    def preflight(
        self, visitor: Visitor, said: Mapping[bytes, bytes], *, shared: bool
    ) -> list[Header]:
        """Return the headers that allow a browser to send its request, if it may."""
        allowed = self.headers_for(visitor, shared=shared)
        if len(allowed) <= 1:  # without an allowed origin
            return allowed
        rules = self.cors or Cors()
        return [
            *(pair for pair in allowed if pair[0] != b"access-control-expose-headers"),
            (b"access-control-allow-methods", ", ".join(rules.allowed_methods).encode()),
            (b"access-control-allow-headers", _headers_allowed(rules, said)),
            (b"access-control-max-age", b"%d" % (rules.max_age or A_DAY)),
        ]


def _headers_allowed(rules: Cors, said: Mapping[bytes, bytes]) -> bytes:
    """Return the headers that a page may send: the configured ones, else those it asks for."""
    if rules.allowed_headers:
        return ", ".join(rules.allowed_headers).encode()
    asked = said.get(b"access-control-request-headers", b"").split(b",")
    names = [name.strip() for name in asked if HEADER_NAME.fullmatch(name.strip())]
    return b", ".join(names) or USUAL_HEADERS


@lru_cache(256)
def _is_same_site(origin: str, host: str) -> bool:
    """Whether a page's host is the requested host, or both are this machine."""
    theirs, ours = _host_of(origin), _name_of(host)
    return theirs != "" and (theirs == ours or (_is_local(theirs) and _is_local(ours)))


def _host_of(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """Return a Host header's name in lower case, without port, brackets and the last dot."""
    name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
    return name.strip("[]").rstrip(".").lower()


@lru_cache(256)
def _means_us(host: str, hosts: frozenset[str]) -> bool:
    name = _name_of(host)
    return _is_this_machine(name) or name in hosts


def _is_this_machine(name: str) -> bool:
    """Whether a name is an address or localhost. Others can direct other names to this machine."""
    return _is_local(name) or _address(name) is not None


def _is_local(name: str) -> bool:
    address = _address(name)
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _is_loopback(local: str) -> bool:
    return local.startswith(("127.", "::ffff:127.")) or local == "::1"


@lru_cache(256)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
