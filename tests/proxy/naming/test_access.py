"""API keys, and the preflights that browsers send before a request."""

from __future__ import annotations

import base64

import pytest

from configschema import parse
from proxy.http.errors import BadRequest
from proxy.http.headers import Header, first_values
from proxy.naming.access import Keys

KEYS = Keys.of(parse("apiKeys: [sk-one, {name: two, key: sk-two, read: true}]").config)


def basic(password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"user:{password}".encode())


def without(headers: list[Header], keys: Keys = KEYS) -> list[Header]:
    """Return the headers that a model server gets."""
    return keys.without(headers, first_values(headers))


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-one"),
        (b"authorization", b"bearer  sk-two "),
        (b"authorization", basic("sk-two")),
        (b"x-api-key", b"sk-one"),
        (b"api-key", b"sk-one"),
    ],
)
def test_each_way_to_show_a_key_lets_in(header: Header) -> None:
    """The key is not passed on to the model server."""
    KEYS.check("GET", "/running", dict([header]), changes=False)
    assert without([header, (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


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
        [(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer sk-one")],
    ],
    ids=repr,
)
def test_without_a_known_key_nobody_gets_in(headers: list[Header]) -> None:
    """Authorization precedes x-api-key; its first value counts; the 401 says how to send a key."""
    with pytest.raises(BadRequest, match="API key") as caught:
        KEYS.check("GET", "/logs", first_values(headers), changes=False)
    assert caught.value.status == 401
    assert caught.value.headers == {"WWW-Authenticate": 'Basic realm="llamadoze"'}


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/wol-health", "/favicon.ico"])
def test_what_says_nothing_of_anybody_is_open(path: str) -> None:
    """Preflights are open too, because they cannot have a key."""
    KEYS.check("GET", path, {}, changes=False)
    KEYS.check("OPTIONS", "/logs", {}, changes=True)


def test_other_peoples_keys_are_passed_on() -> None:
    """A model server may have its own keys."""
    headers = [(b"authorization", b"Bearer theirs"), (b"x-api-key", b"sk-one")]
    headers.append((b"x-api-key", b"another"))
    assert without(headers) == [headers[0], headers[2]]
    assert without(headers, Keys.of(parse("").config)) == headers


def test_all_keys_of_ours_stay_here_however_often_they_are_shown() -> None:
    """The first key counts; the model server gets only keys that are not ours."""
    first, second = (b"authorization", b"Bearer sk-one"), (b"authorization", basic("sk-two"))
    theirs = (b"authorization", b"Bearer theirs")
    headers = [first, second, theirs]
    assert KEYS.check("GET", "/running", first_values(headers), changes=False).value == "sk-one"
    assert without(headers) == [theirs]
    offered = b"openai-insecure-api-key.sk-two"
    assert without([(b"sec-websocket-protocol", offered)] * 2) == []


def test_a_key_that_may_only_read_changes_nothing() -> None:
    """The refusal names the key; a key without `read` may change things."""
    read, other = {b"x-api-key": b"sk-two"}, {b"x-api-key": b"sk-one"}
    assert KEYS.check("GET", "/running", read, changes=False).name == "two"
    with pytest.raises(BadRequest, match="'two' may only read") as caught:
        KEYS.check("POST", "/v1/chat/completions", read, changes=True)
    assert caught.value.status == 403
    assert KEYS.check("POST", "/v1/chat/completions", other, changes=True).name == ""


def test_a_websockets_key_stands_among_its_protocols() -> None:
    """A browser can set no other header for a websocket; the other protocols are passed on."""
    offered = b"realtime, openai-insecure-api-key.sk-one , openai-beta.x"
    header = (b"sec-websocket-protocol", offered)
    KEYS.check("GET", "/upstream/m/ws", dict([header]), changes=True)
    assert without([header]) == [(header[0], b"realtime, openai-beta.x")]
    theirs = (b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.theirs")
    assert without([theirs]) == [theirs]
