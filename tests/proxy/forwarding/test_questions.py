"""What the daemon reads from a body, however odd the body is."""

from __future__ import annotations

import json

import pytest

from tests.peers.client import ask
from tests.proxy.daemon import daemon, stub

PATH = "/v1/chat/completions"
KIND = {"content-type": "application/json"}
SERVED = [
    b'{"model": "a", "x": "cut \\ud83d"}',
    b'{"model": "a", "x": NaN}',
    b'{"model": "a", "x": "raw\ttab"}',
    b'{"model": "a", "x": ' + b"[" * 800 + b"]" * 800 + b"}",
    b'{"model": "a", "x": "\xff"}',
    b'\xef\xbb\xbf{"model": "a"}',
    b'{"model": "a", "stream": "yes"}',
    b'{"model": "a", "stream": [{}]}',
    b'{"model": "b", "model": "a"}',
    b'{"m\\u006fdel": "a"}',
]
REFUSED = [
    b'{"model": "a\xff"}',
    b'{"model": ["\xff"]}',
    b'{"model": ["a"]}',
    b'{"model": null}',
    b'{"model": true}',
    b'{"model": "a"',
    b'{"model": "a" "x": 1}',
    b"[1, 2]",
    b'"model"',
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_a_body_is_judged_by_its_model_server_and_not_by_us(large: bool) -> None:
    """If the model can be read, the body passes unchanged, even with half an emoji, NaN or a raw
    tab."""
    async with daemon({"a": stub()}) as running:
        for body in SERVED:
            sent = body + b" " * (5 << 20) if large else body
            reply = await ask(
                running.port, "POST", PATH, sent, {"content-type": "application/json"}
            )
            assert reply.status == 200, body
            assert reply.json()["body"].encode("latin-1") == sent


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_a_body_without_a_readable_model_is_the_clients_fault(large: bool) -> None:
    """The answer is never an internal error, and no model starts."""
    async with daemon({"a": stub()}) as running:
        for body in REFUSED:
            sent = body + b" " * (5 << 20) if large else body
            reply = await ask(
                running.port, "POST", PATH, sent, {"content-type": "application/json"}
            )
            assert reply.status == 404, body
            assert reply.json()["error"]["param"] == "model"
        assert running.state("a") == "stopped"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "a", "\xff": 1, "top_p": 1}', 400),
        (b'{"model": "a", "x": "cut \\ud83d", "top_p": 1}', 200),
        (b'{"model": "a", "top_p": NaN}', 200),
        (b'{"model": "a", "top_p": [' + b"[]," * 100_000 + b"0]}", 200),
    ],
    ids=["a key", "half an emoji", "NaN", "much"],
)
async def test_a_filter_changes_odd_bodies_or_says_what_is_wrong(body: bytes, status: int) -> None:
    """The filter removes the parameter, or the client gets an error."""
    model = stub(filters={"stripParams": "top_p"})
    async with daemon({"a": model}) as running:
        reply = await ask(running.port, "POST", PATH, body, KIND)
        assert reply.status == status
        if status == 200:
            assert "top_p" not in reply.json()["body"]


async def test_a_forms_model_is_found_wherever_it_stands() -> None:
    """The name may be escaped and stand before or after other fields; the first one counts."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    rest = b"&x=" + b"y" * 100_000
    async with daemon({"a b": stub()}) as running:
        for body in (
            b"model=a+b" + rest,
            b"x=1&model=a%20b" + rest,
            b"z=1" + rest + b"&model=a+b&model=c",
        ):
            assert (await ask(running.port, "POST", PATH, body, kind)).status == 200
        for body in (b"xmodel=a+b", b"model", b"&" * 100_000, b"model=%"):
            assert (await ask(running.port, "POST", PATH, body, kind)).status == 404


async def test_a_refusal_is_json_that_can_be_read() -> None:
    """The content of the body does not matter."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", PATH, b"\x00" * 100)
        assert json.loads(reply.body)["error"]["message"]
