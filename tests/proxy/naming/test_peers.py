"""Models of other servers (peers)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from configschema.keys.fields import AnySeconds
from tests.peers.client import Client, ask
from tests.ports import free_port
from tests.proxy.daemon import Daemon, daemon, stub

CHAT = "/v1/chat/completions"


@asynccontextmanager
async def with_peer(**settings: Any) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """Run a daemon, and a second daemon that has the first one as its peer."""
    models = {"far": stub(), "org/deep": stub()}
    async with daemon(models) as far:
        proxy = f"http://127.0.0.1:{far.port}"
        peer = {"proxy": proxy, "models": list(models), **settings}
        async with daemon({"near": stub()}, peers={"lab": peer}) as near:
            yield near, far


async def asked(running: Daemon, model: str, **more: Any) -> Any:
    reply = await ask(running.port, "POST", CHAT, {"model": model, **more})
    return reply.status, reply.json()


async def test_a_peers_models_are_asked_for_by_full_or_bare_name() -> None:
    """The peer gets the bare name, and does not learn the addresses of our clients."""
    async with with_peer() as (near, far):
        for name in ("lab/far", "far", "lab/org/deep"):
            status, echo = await asked(near, name)
            assert status == 200
            assert json.loads(echo["body"])["model"] == name.removeprefix("lab/")
            seen = {line.partition(":")[0] for line in echo["headers"]}
            assert "x-request-id" in seen
        assert far.supervisor.servers["org/deep"].snapshot().state.value == "ready"
        rows = (await ask(near.port, "GET", "/v1/models")).json()["data"]
        assert [row["id"] for row in rows] == ["lab/far", "lab/org/deep", "near"]
        assert rows[0]["meta"]["llamaswap"] == {"type": "peer", "peerID": "lab"}


async def test_a_peers_key_replaces_the_clients() -> None:
    """The peer gets its key in both common headers, and its own name as Host."""
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        peer = {"proxy": f"http://127.0.0.1:{port}/base", "models": ["m"], "apiKey": "theirs"}
        async with daemon({"a": stub()}, peers={"p": peer}) as running:
            headers = {"authorization": "Bearer mine", "x-forwarded-for": "10.0.0.1"}
            body = {"model": "m"}
            assert (await ask(running.port, "POST", CHAT, body, headers)).status == 200
        nursery.cancel_scope.cancel()
    (head,) = seen
    assert head.startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{port}".encode() in head
    assert b"authorization: Bearer theirs\r\nx-api-key: theirs\r\n" in head
    assert b"mine" not in head
    assert b"x-forwarded-for" not in head


async def test_a_peers_filters_change_what_it_reads() -> None:
    """The filters work like those of a model."""
    filters = {"stripParams": "temperature", "setParams": {"top_k": 3}}
    async with with_peer(filters=filters) as (near, _):
        _, echo = await asked(near, "far", temperature=1)
        assert json.loads(echo["body"]) == {"model": "far", "top_k": 3}


async def test_a_peer_that_is_not_there_is_a_502() -> None:
    """The error has the peer's address or the time limit that was reached."""
    peer = {"proxy": f"http://127.0.0.1:{free_port(1)}", "models": ["m"]}
    async with daemon({"a": stub()}, peers={"p": peer}) as running:
        status, reply = await asked(running, "m")
        assert (status, reply["error"]["code"]) == (502, "bad_gateway")
        assert "no connection to 127.0.0.1" in reply["error"]["message"]
    async with with_peer(timeouts={"responseHeader": 1}) as (near, _):
        status, reply = await asked(near, "far", delay=3)
        assert (status, "timeouts.responseHeader" in reply["error"]["message"]) == (502, True)


async def test_other_time_limits_hold_at_once_after_a_reload() -> None:
    """The next request to a model or a peer uses a connection with the new limits."""
    async with daemon({"a": stub(timeouts={"responseHeader": 60})}) as running:
        assert (await asked(running, "a"))[0] == 200
        config = running.supervisor.config
        model = config.models["a"]
        timeouts = attrs.evolve(model.timeouts, response_header=AnySeconds(1))
        changed = attrs.evolve(config, models={"a": attrs.evolve(model, timeouts=timeouts)})
        assert running.supervisor.reload(changed).adjusted == ("a",)
        status, reply = await asked(running, "a", delay=3)
        assert (status, "timeouts.responseHeader" in reply["error"]["message"]) == (502, True)


async def test_a_client_that_leaves_ends_the_peers_work() -> None:
    """The request ends as it does with a local model."""
    async with with_peer() as (near, far):
        await asked(near, "far")
        client = await Client.connect(near.port)
        await client.send("POST", CHAT, json.dumps({"model": "far", "delay": 30}).encode())
        with trio.fail_after(2):
            while not far.supervisor.servers["far"].snapshot().in_flight:
                await trio.sleep(0.01)
        await client.stream.aclose()
        with trio.fail_after(2):
            while far.supervisor.servers["far"].snapshot().in_flight:
                await trio.sleep(0.01)
