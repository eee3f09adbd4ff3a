"""Requests through the daemon to real processes and back."""

from __future__ import annotations

import json
import re
import time

import h11
import pytest
import trio

from tests.peers.client import Client, Reply, ask, chat
from tests.ports import free_port
from tests.proxy.daemon import daemon, stub

ROUTES = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
]


async def stats(port: int) -> dict[str, int]:
    found: dict[str, int] = (await ask(port, "GET", "/stats")).json()
    return found


def upstream_port(running: object, model: str = "a") -> int:
    servers = running.supervisor.servers  # type: ignore[attr-defined]
    return int(servers[model].model.proxy.rpartition(":")[2])


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_is_forwarded_with_its_query(route: str) -> None:
    """The model server gets the path and the query as they were sent."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", route + "?x=%2F&y=1", {"model": "a"})
        assert reply.json()["target"] == route + "?x=%2F&y=1"


async def test_bodies_pass_byte_for_byte_both_ways() -> None:
    """The daemon does not tidy odd spacing, escapes, doubled keys or non-ASCII text."""
    body = '{ "model" :"a",\t"raw":true, "x":1.0,"x":"\\u00e9 é 😀", "n":1e400}\n\n'.encode()
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", "/v1/chat/completions", body)
    assert reply.body == body


async def test_a_large_body_passes() -> None:
    """A prompt of 10 MB passes in both directions."""
    body = json.dumps({"model": "a", "raw": True, "x": "y" * 10_000_000}).encode()
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", "/v1/chat/completions", body)
    assert reply.body == body


async def test_headers_go_on_without_those_of_the_connection() -> None:
    """The daemon adds the client's address and removes hop-by-hop headers."""
    async with daemon({"a": stub()}) as running:
        headers = {
            "authorization": "Bearer k",
            "connection": "keep-alive, x-secret",
            "x-secret": "1",
            "x-forwarded-for": "10.0.0.1",
            "accept-encoding": "br",
        }
        reply = await ask(running.port, "POST", ROUTES[0], {"model": "a"}, headers)
    seen = [line.lower() for line in reply.json()["headers"]]
    assert "authorization: bearer k" in seen
    assert "accept-encoding: br" in seen
    assert "x-forwarded-for: 10.0.0.1, 127.0.0.1" in seen
    assert not [line for line in seen if line.startswith(("connection", "x-secret"))]


async def test_the_servers_status_and_headers_come_back() -> None:
    """The client sees an error of the model server."""
    async with daemon({"a": stub()}) as running:
        reply = await chat(running.port, "a", status=418)
    assert reply.status == 418
    assert reply.headers["content-type"] == "application/json"
    assert "date" in reply.headers


async def test_streams_arrive_as_they_are_made() -> None:
    """The first event arrives long before the model server writes the last event."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        client = await Client.connect(running.port)
        async with client.stream:
            body = json.dumps({"model": "a", "chunks": 5, "pause": 0.1}).encode()
            await client.send("POST", ROUTES[0], body)
            began = time.monotonic()
            response = await client.event()
            assert dict(response.headers)[b"x-accel-buffering"] == b"no"
            arrivals = []
            while isinstance(event := await client.event(), h11.Data):
                arrivals.append((time.monotonic() - began, bytes(event.data)))
    assert [data for _, data in arrivals] == [b'data: {"n": %d}\n\n' % n for n in range(5)]
    assert arrivals[0][0] < 0.1 < 0.3 < arrivals[-1][0]


async def test_a_client_that_leaves_cancels_the_request_upstream() -> None:
    """The request is cancelled at once, not at the end of the generation, and frees its lease."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        client = await Client.connect(running.port)
        body = json.dumps({"model": "a", "chunks": 1000, "pause": 0.01}).encode()
        await client.send("POST", ROUTES[0], body)
        await client.event()
        await client.stream.aclose()
        with trio.fail_after(1):
            while (await stats(upstream_port(running)))["cancelled"] == 0:
                await trio.sleep(0.01)
            while running.supervisor.servers["a"].snapshot().in_flight:
                await trio.sleep(0.01)


async def test_a_client_that_leaves_before_the_first_byte_cancels_too() -> None:
    """The client disconnects while the model thinks."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        client = await Client.connect(running.port)
        await client.send("POST", ROUTES[0], b'{"model": "a", "delay": 30}')
        await trio.sleep(0.1)
        assert running.supervisor.servers["a"].snapshot().in_flight == 1
        await client.stream.aclose()
        with trio.fail_after(1):
            while running.supervisor.servers["a"].snapshot().in_flight:
                await trio.sleep(0.01)


async def test_use_model_name_is_what_the_server_reads() -> None:
    """The rest of the body keeps its meaning."""
    async with daemon({"a": stub(useModelName="org/real")}) as running:
        reply = await chat(running.port, "a", x=[1.5, "é", None])
    assert json.loads(reply.json()["body"]) == {"model": "org/real", "x": [1.5, "é", None]}


async def test_an_alias_reaches_its_model_and_stays_in_the_body() -> None:
    """As in llama-swap, the model server reads the alias."""
    async with daemon({"a/b": stub(aliases=["gpt"])}) as running:
        reply = await chat(running.port, "gpt")
    assert json.loads(reply.json()["body"]) == {"model": "gpt"}


async def test_connections_are_kept_on_both_sides() -> None:
    """Many requests on one client connection all succeed."""
    async with daemon({"a": stub()}) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            for _ in range(20):
                assert (await client.ask("POST", ROUTES[0], {"model": "a"})).status == 200


async def test_models_take_turns_and_a_sleeper_keeps_its_process() -> None:
    """With real commands, model A sleeps while model B runs, and wakes with the same pid."""
    models = {"a": stub(sleeps=True), "b": stub()}
    async with daemon(models) as running:
        first = (await chat(running.port, "a")).json()["pid"]
        assert (await chat(running.port, "b")).status == 200
        assert (running.state("a"), running.state("b")) == ("asleep", "ready")
        assert (await chat(running.port, "a")).json()["pid"] == first
        assert (running.state("a"), running.state("b")) == ("ready", "stopped")


async def test_a_swap_never_answers_with_an_error() -> None:
    """Thirty requests for three models succeed, and no sleeping model receives one."""
    models = {"a": stub(sleeps=True), "b": stub(sleeps=True), "c": stub()}
    replies: list[Reply] = []
    async with daemon(models) as running:

        async def one(name: str) -> None:
            replies.append(await chat(running.port, name, delay=0.01))

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(one, "abc"[number % 3])
                await trio.sleep(0.01)
    assert [reply.status for reply in replies] == [200] * 30


async def test_a_stream_in_flight_ends_before_its_model_sleeps() -> None:
    """The stream arrives whole although another model's request waits behind it."""
    async with daemon({"a": stub(sleeps=True), "b": stub()}) as running:
        await chat(running.port, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat, running.port, "b")
            reply = await chat(running.port, "a", chunks=30, pause=0.01)
    assert reply.complete
    assert reply.body.count(b"data:") == 30


async def test_a_server_that_dies_in_mid_stream_ends_it_with_an_error_event() -> None:
    """OpenAI clients raise the event as an error; the next request starts the model again."""
    async with daemon({"a": stub()}) as running:
        reply = await chat(running.port, "a", chunks=5, die_after=1)
        assert reply.complete
        last = json.loads(reply.body.rpartition(b"data: ")[2])
        assert last["error"]["code"] == "model_failed"
        assert "process exited with status 1 while ready" in last["error"]["message"]
        assert (await chat(running.port, "a")).status == 200


async def test_a_plain_body_that_breaks_off_is_left_without_its_end() -> None:
    """The client can see that the body is incomplete."""
    async with daemon({"a": stub()}) as running:
        reply = await chat(running.port, "a", chunks=5, die_after=1, kind="text/plain")
    assert (reply.status, reply.complete) == (200, False)


async def test_a_server_that_dies_before_its_answer_is_a_502() -> None:
    """Each request in flight gets the reason and the server's last output, in OpenAI's form."""
    async with daemon({"a": stub()}) as running:
        replies: list[Reply] = []

        async def other() -> None:
            replies.append(await chat(running.port, "a", delay=30))

        await chat(running.port, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.sleep(0.1)
            replies.append(await chat(running.port, "a", die=3))
        for reply in replies:
            assert reply.status == 502
            error = reply.json()["error"]
            assert error["type"] == "server_error"
            assert error["message"] == (
                "model 'a' failed: process exited with status 3 while ready; "
                "last output: the stub was told to die"
            )
        assert (await chat(running.port, "a")).status == 200


async def test_a_server_that_gives_up_while_starting_is_a_502_with_its_last_words() -> None:
    """The client reads the same clue as the operator."""
    async with daemon({"a": stub("--exit", "3")}) as running:
        reply = await chat(running.port, "a")
    assert reply.status == 502
    message = reply.json()["error"]["message"]
    assert message == (
        "model 'a' failed: process exited with status 3 while starting; "
        "last output: the stub gives up"
    )


async def test_a_restarted_server_gets_new_connections() -> None:
    """Kept connections to the old process cause no errors."""
    async with daemon({"a": stub()}) as running:
        for _ in range(3):
            assert (await chat(running.port, "a")).status == 200
            await running.supervisor.unload("a")


async def test_an_address_where_nobody_listens_is_a_502() -> None:
    """The process lives but does not listen."""
    keys = {"cmd": "sleep 1000", "proxy": f"http://127.0.0.1:{free_port()}"}
    async with daemon({"a": {**keys, "checkEndpoint": "none"}}) as running:
        reply = await chat(running.port, "a")
    assert reply.status == 502
    assert "no connection to 127.0.0.1" in reply.json()["error"]["message"]


async def test_the_log_tells_how_each_request_ended(log_lines: list[dict[str, object]]) -> None:
    """The log tells served, refused, broken and abandoned requests apart."""
    async with daemon({"a": stub()}) as running:
        await chat(running.port, "a")
        await chat(running.port, "nope")
        await chat(running.port, "a", chunks=5, die_after=1)
        await chat(running.port, "a")
        client = await Client.connect(running.port)
        await client.send("POST", ROUTES[0], b'{"model": "a", "delay": 30}')
        await trio.sleep(0.1)
        await client.stream.aclose()
        await trio.sleep(0.1)
    what = "POST /v1/chat/completions"
    said = [str(line["event"]) for line in log_lines if what in str(line["event"])]
    ends = [re.sub(r" after [0-9.]+s", "", line) for line in said]
    assert ends == [
        f"<a> {what} 200",
        f"<nope> {what} 404: no model is called 'nope'",
        f"<a> {what} 502: model 'a' failed: process exited with status 1 while ready",
        f"<a> {what} 200",
        f"<a> {what} ended early: the client disconnected or was cut off",
    ]


STALLED = "no byte from the model server for 1s (timeouts.busy)"


async def test_a_model_server_that_says_nothing_for_too_long_is_an_error() -> None:
    """The error is a status before the head, and an event in a stream."""
    async with daemon({"a": stub(timeouts={"busy": 1})}) as running:
        reply = await chat(running.port, "a", delay=5)
        assert (reply.status, reply.json()["error"]["message"]) == (502, STALLED)
        stream = await chat(running.port, "a", chunks=3, pause=5)
    assert stream.status == 200
    assert stream.body.startswith(b'data: {"n": 0}\n\ndata: {')
    assert STALLED.encode() in stream.body
