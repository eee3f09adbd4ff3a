"""Addresses of model servers and peers, judged by their text alone.

Owns which texts are refused, which are accepted although no request can be sent there, and which
addresses name this machine.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

KEPT = 4096  # answers: the same addresses are judged several times
FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_PORT = re.compile(r":([^:\]@]*)$")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@lru_cache(KEPT)
def is_malformed(address: str) -> bool:
    """Whether an address is not well-formed; llama-swap refuses the same ones when it starts."""
    try:
        url = urlsplit(address)
    except ValueError:
        return True
    port = _PORT.search(url.netloc)
    if port and port[1] and not port[1].isdecimal():
        return True
    # Go's parser accepts anything in a query.
    if _CONTROL.search(address) or _BROKEN_ESCAPE.search(url.path) or " " in url.netloc:
        return True
    return ":" in address.partition("/")[0] and not _SCHEME.match(address)


@lru_cache(KEPT)
def is_reachable(address: str) -> bool:
    """Whether requests can be sent to an address: it has a host, and http or https."""
    if is_malformed(address) or FORBIDDEN.search(address):
        return False
    url = urlsplit(address)
    try:
        (url.hostname or "").encode("idna")
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port above 65535, or a host that IDNA cannot encode
        return False


@lru_cache(KEPT)
def local_port(address: str) -> int | None:
    """Return the port of an address on this machine, or None for any other address."""
    if not is_reachable(address):
        return None
    url = urlsplit(address)
    usual = 443 if url.scheme == "https" else 80
    return (url.port or usual) if url.hostname in _LOCAL else None


@lru_cache(KEPT)
def is_here(address: str) -> bool:
    """Whether an address names this machine itself. Host names are not looked up."""
    host = "" if is_malformed(address) else urlsplit(address).hostname or ""
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return numeric.is_loopback or numeric.is_unspecified  # Linux routes the latter here, too
