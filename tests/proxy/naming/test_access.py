"""Keys and what browsers ask before they ask."""

from __future__ import annotations

import base64

import pytest

from proxy.http.errors import BadRequest
from proxy.http.headers import Header
from proxy.naming.access import Keys, preflight

KEYS = Keys.of(["sk-one", "sk-two"])


def basic(password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"user:{password}".encode())


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-one"),
        (b"authorization", b"bearer  sk-two "),
        (b"authorization", basic("sk-two")),
        (b"x-api-key", b"sk-one"),
    ],
)
def test_each_way_to_show_a_key_lets_in(header: Header) -> None:
    """And the key goes no further."""
    KEYS.check("POST", "/v1/chat/completions", [header])
    assert KEYS.without([header, (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer sk-on")],
        [(b"authorization", b"Basic ???")],
        [(b"authorization", basic(""))],
        [(b"authorization", b"sk-one")],
        [(b"x-api-key", b"")],
        [(b"authorization", b"Bearer wrong"), (b"x-api-key", b"sk-one")],
    ],
    ids=repr,
)
def test_without_a_known_key_nobody_gets_in(headers: list[Header]) -> None:
    """Authorization counts before x-api-key; how to show a key is said."""
    with pytest.raises(BadRequest, match="API key") as caught:
        KEYS.check("GET", "/logs", headers)
    assert caught.value.status == 401
    assert caught.value.headers == {"WWW-Authenticate": 'Basic realm="llamadoze"'}


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/wol-health", "/favicon.ico"])
def test_what_says_nothing_of_anybody_is_open(path: str) -> None:
    """And so is every preflight, which cannot show a key."""
    KEYS.check("GET", path, [])
    KEYS.check("OPTIONS", "/logs", [])


def test_other_peoples_keys_are_passed_on() -> None:
    """A model server may have keys of its own."""
    headers = [(b"authorization", b"Bearer theirs"), (b"x-api-key", b"sk-one")]
    headers.append((b"x-api-key", b"another"))
    assert KEYS.without(headers) == [headers[0], headers[2]]
    assert Keys.of([]).without(headers) == headers


def test_a_preflight_echoes_the_names_that_are_names() -> None:
    """What is none is left out."""
    asked = [(b"access-control-request-headers", b"x-a, bad name, X-B,\x01")]
    assert dict(preflight(asked))[b"access-control-allow-headers"] == b"x-a, X-B"
    assert b"Authorization" in dict(preflight([]))[b"access-control-allow-headers"]
