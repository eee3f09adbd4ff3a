"""The daemon's own requests to model servers, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from configschema import Call, parse
from proxy.forwarding.modelcalls import CONTACT, make_call, read_answer
from proxy.http.origin import Origin
from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub

SLEEPS: dict[str, Any] = {
    "sleepMode": "enable",
    "sleepEndpoints": [{"endpoint": "/sleep?level=2"}],
    "wakeEndpoints": [{"endpoint": "/wake_up", "body": "{}"}],
}


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve the same answer to every request; yield the address and the requests."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        asked.append(data)
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


async def test_a_model_with_llmsnaps_endpoints_sleeps_and_wakes() -> None:
    """The model keeps its pid and needs no command to sleep."""
    async with daemon({"a": stub(**SLEEPS), "b": stub()}) as running:
        first = (await chat(running.port, "a")).json()["pid"]
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        again = (await chat(running.port, "a")).json()["pid"]
        assert again == first
        slept = (await ask(running.port, "POST", "/api/models/sleep/a")).json()
        assert slept["state"] == "asleep"


@pytest.mark.parametrize(
    ("status", "body", "data", "failure"),
    [
        (200, b'{"n": [1]}', {"n": [1]}, None),
        (200, b"", None, "answered , which is not JSON"),
        (200, b"[" * 100_000, None, f"answered {'[' * 200}..., which is not JSON"),
        (400, b"no slot", None, "answered 400 (no slot)"),
    ],
)
async def test_an_answer_that_is_read_is_json_or_a_failure(
    status: int, body: bytes, data: object, failure: str | None
) -> None:
    """The failure tells an operator what the server answered."""
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    async with answering(head + body) as (address, _):
        answer = await read_answer(Call(name="n", method="GET", url=f"{address}/slots"))
    assert (answer.data, answer.failure) == (data, failure)


async def test_a_model_that_does_not_know_the_endpoint_is_stopped() -> None:
    """A 404 is not a sleep, although plain curl would succeed."""
    async with answering(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n") as (address, asked):
        unknown = {**SLEEPS, "sleepEndpoints": [{"endpoint": f"{address}/sleep"}]}
        async with daemon({"a": stub(**unknown), "b": stub()}) as running:
            await chat(running.port, "a")
            await chat(running.port, "b")
            assert running.state("a") == "stopped"
    assert asked[0].startswith(b"POST /sleep HTTP/1.1\r\n")


async def test_a_call_is_sent_as_it_is_written() -> None:
    """Path, query and body are kept; JSON gets its content type."""
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (address, asked):
        url = f"{address}/base/ü?tags=weights&x=a%20b"
        assert await make_call(Call(name="s", method="PUT", url=url, body='{"a": 1}')) is None
        assert await make_call(Call(name="s", method="GET", url=address)) is None
    with_body, without = asked
    assert with_body.startswith(b"PUT /base/%C3%BC?tags=weights&x=a%20b HTTP/1.1\r\n")
    assert b"content-type: application/json\r\n" in with_body
    assert b"content-length: 8\r\n" in with_body
    assert without.startswith(b"GET / HTTP/1.1\r\n")
    assert b"content-type" not in without


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\nno", "answered 404 (no)"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\na\x1b[31m\nb", "answered 500 (a [31m b)"),
        (b"HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 900\r\n\r\n" + b"x" * 900, "x" * 200 + "...)"),
        (b"", "failed: "),
        (b"nonsense\r\n\r\n", "failed: "),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "failed: "),
    ],
)
async def test_anything_but_a_2xx_answer_is_a_failure(answer: bytes, failure: str) -> None:
    """The failure says what the server answered, but shortens long answers."""
    async with answering(answer) as (address, _):
        said = await make_call(Call(name="s", method="POST", url=f"{address}/sleep"))
    assert said is not None
    assert failure in said
    assert len(said) < 260


async def test_a_status_that_says_enough_does_not_wait_for_its_body() -> None:
    """The body may never arrive, and the step's limit is a minute."""

    async def stall(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, stall, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(5):
            said = await make_call(
                Call(name="s", method="POST", url=f"http://127.0.0.1:{port}/sleep")
            )
        assert said == "answered 500"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("address", "authority"),
    [
        ("http://h:8000", "h:8000"),
        ("http://h", "h"),
        ("https://h:443/x", "h"),
        ("http://[::1]:80", "[::1]"),
        ("http://[::1]:81", "[::1]:81"),
    ],
)
def test_the_host_header_has_the_port_that_is_not_the_usual_one(
    address: str, authority: str
) -> None:
    """RFC 9110 omits the default port, and strict servers check this."""
    assert Origin.of(address).authority == authority


async def test_a_call_to_nobody_is_a_failure() -> None:
    """The model server may have exited."""
    said = await make_call(Call(name="s", method="POST", url="http://127.0.0.1:9/sleep"))
    assert said is not None
    assert said.startswith("failed: no connection to 127.0.0.1:9")


def answer_of(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("body", "holds", "good"),
    [
        (b'{"is_sleeping": true}', "is_sleeping", True),
        (b'{"is_sleeping": false}', "is_sleeping", False),
        (b'{"is_sleeping": false}', "!is_sleeping", True),
        (b'{"is_sleeping": "true"}', "is_sleeping", False),
        (b'{"is_sleeping": 1}', "is_sleeping", False),
        (b"null", "is_sleeping", False),
        (b"", "is_sleeping", False),
        (b"no JSON", "is_sleeping", False),
        (b"[" * 100_000, "is_sleeping", False),
        (b'{"n": 1e999}', "ceil(n) < `5`", False),
        (b'{"n": "text"}', "contains(n, `1`)", False),
        (b'{"data": [{"id": "a", "ok": true}]}', "data[?id == 'a'].ok | [0]", True),
    ],
)
async def test_what_must_hold_of_an_answer_is_true_and_nothing_else(
    body: bytes, holds: str, good: bool
) -> None:
    """Any other answer of the server is a failure in words."""
    async with answering(answer_of(body)) as (address, _):
        said = await make_call(Call(name="s", method="GET", url=address, holds=holds))
    assert (said is None) is good
    assert said is None or (len(said) < 400 and f"this is not true: {holds}" in said)


@pytest.mark.parametrize(("status", "good"), [(200, False), (202, True), (404, True), (500, False)])
async def test_the_statuses_that_are_expected_are_good(status: int, good: bool) -> None:
    """With a list of expected statuses, all others are failures, including 200."""
    async with answering(answer_of(b"{}", status)) as (address, _):
        call = Call(name="s", method="POST", url=address, expect=(202, 404))
        assert (await make_call(call) is None) is good


LOCKED = "the model server requires a key: set it in controlHeaders"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_missing_is_named(status: int) -> None:
    """The health check, a step and the request for one token all say where to set the key."""
    async with answering(answer_of(b"no", status)) as (address, _):
        config = parse(json.dumps({"models": {"m": {"cmd": "x", "proxy": address}}})).config
        model = config.models["m"]
        assert await CONTACT.probe(model) == f"/health answered {status}: {LOCKED}"
        said = await make_call(Call(name="s", method="POST", url=f"{address}/sleep"))
        assert said == f"answered {status} (no): {LOCKED}"
        token = await CONTACT.one_token(model, "/v1/completions")
        assert token.failure == f"/v1/completions answered {status}: {LOCKED}"


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", None),
        ("no metrics {{{", None),
        ("other 3\nrunning_total 4\nrunning_total{a='b'} x\n", None),
        ("# HELP running x\n# TYPE running gauge\nrunning 0\n", None),
        ('running{model="a"} 0.0\nrunning{model="b"} 0\n', None),
        ("running NaN\n", None),
        ("running x\n", None),
        ("running\n", None),
        ("running{\n", None),
        ("running 2\n", "reported requests in flight: 2"),
        ("# TYPE running gauge\r\nrunning 2.0\r\n", "reported requests in flight: 2"),
        ("broken { line\nrunning 2", "reported requests in flight: 2"),
        ('running{a="b c",d="} 0 # \\" \\\\ "} 1.5e1 1700\n', "reported requests in flight: 15"),
        ('running{a="1"} 1\nrunning{a="2"} 2\n', "reported requests in flight: 3"),
    ],
)
async def test_a_step_waits_until_no_request_runs(text: str, failure: str | None) -> None:
    """The step reads the server's own metric; an unknown or unreadable metric does not block."""
    async with answering(answer_of(text.encode())) as (address, _):
        step = Call(name="s", method="GET", url=f"{address}/metrics", idle_metric="running")
        assert await make_call(step) == failure


async def test_a_metric_with_a_colon_in_its_name_is_found() -> None:
    """vLLM's metrics have such names."""
    text = b'vllm:num_requests_running{engine="0",model_name="a/b"} 1.0\n'
    async with answering(answer_of(text)) as (address, _):
        name = "vllm:num_requests_running"
        said = await make_call(Call(name="s", method="GET", url=address, idle_metric=name))
        assert said == "reported requests in flight: 1"


async def test_a_call_has_its_own_headers() -> None:
    """Configured headers replace the default headers."""
    headers = {"content-type": "text/plain", "x-admin-key": "k"}
    async with answering(answer_of(b"")) as (address, asked):
        await make_call(Call(name="s", method="POST", url=address, body="x", headers=headers))
    assert asked[0].count(b"content-type: text/plain\r\n") == 1
    assert b"application/json" not in asked[0]
    assert b"x-admin-key: k\r\n" in asked[0]


@pytest.mark.parametrize(
    ("status", "body", "token"),
    [
        (200, b'{"choices": [{"message": {"content": "4"}}]}', "4"),
        (200, b'{"choices": [{"message": {"content": null, "reasoning": "So"}}]}', "So"),
        (200, b'{"choices": [{"text": " four"}]}', " four"),
        (200, b'{"choices": [{"message": {"content": ""}}]}', ""),
        (200, b'{"choices": []}', None),
        (200, b"[]", None),
        (200, b"4", None),
        (500, b"{}", None),
        (404, b"{}", None),
    ],
)
async def test_one_token_is_found_in_a_completion(
    status: int, body: bytes, token: str | None
) -> None:
    """Otherwise there is a reason; a model that cannot complete is not treated as ill."""
    async with answering(answer_of(body, status)) as (address, asked):
        keys = {"cmd": "x", "proxy": address, "controlHeaders": {"authorization": "Bearer k"}}
        found = parse(json.dumps({"models": {"m": keys}})).config.models["m"]
        said = await CONTACT.one_token(found, "")
    assert b"authorization: Bearer k\r\n" in asked[0]
    assert (said.text if said.failure is None else None) == token
    assert said.is_unsuited is (status == 404)
    assert said.route == ("" if token is None else "/v1/chat/completions")


async def test_one_token_is_asked_for_at_the_route_that_answered_before() -> None:
    """No other route is tried."""
    async with answering(answer_of(b"{}", 500)) as (address, asked):
        found = parse(json.dumps({"models": {"m": {"cmd": "x", "proxy": address}}})).config
        said = await CONTACT.one_token(found.models["m"], "/v1/completions")
    assert [one.split(b" ")[1] for one in asked] == [b"/v1/completions"]
    assert said.failure == "/v1/completions answered 500"
