"""A model server's own pages: /upstream, websockets and /comfyui."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

FRAMINGS = ["content-length: 0", "content-length: 1", "transfer-encoding: chunked"]
UPGRADE = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n"


async def asked(running: Daemon, path: str, method: str = "GET", **headers: str) -> Reply:
    return await ask(running.port, method, path, b"", headers)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
async def test_any_path_and_method_reaches_the_model_server(method: str) -> None:
    """The daemon filters nothing and keeps escapes."""
    models = {"org/b": stub(aliases=["bee"], useModelName="x", filters={"setParams": {"y": 1}})}
    async with daemon(models) as running:
        for name in ("org/b", "org%2Fb", "bee"):
            reply = await ask(running.port, method, f"/upstream/{name}/p%2Fq?r=%20", {"model": "z"})
            assert reply.json()["target"] == "/p%2Fq?r=%20"
            assert reply.json()["body"] == '{"model": "z"}'


async def test_a_page_is_moved_below_its_slash() -> None:
    """Relative links need the slash; the redirect is relative, as a proxy may add a prefix."""
    async with daemon({"a": stub(), "comfyui_auto": stub()}) as running:
        for method, status in (("GET", 301), ("POST", 308)):
            for path in ("/upstream/a", "/comfyui"):
                reply = await asked(running, f"{path}?x=1", method)
                place = f".{path.removeprefix('/upstream')}/?x=1"
                assert (reply.status, reply.headers["location"]) == (status, place)
        assert (await asked(running, "/upstream/nobody/x")).status == 404


async def test_files_of_a_page_start_no_model() -> None:
    """An old browser tab must not swap models; once the model runs, its files are served."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "/upstream/a/app.js?v=1")
        assert (reply.status, running.state("a")) == (409, "stopped")
        assert (await asked(running, "/upstream/a/")).status == 200
        assert (await asked(running, "/upstream/a/app.js?v=1")).json()["target"] == "/app.js?v=1"


async def test_comfyui_is_started_by_its_page_only() -> None:
    """All other paths of ComfyUI get a 409 until the page has started it."""
    async with daemon({"comfyui_auto": stub()}) as running:
        assert (await asked(running, "/comfyui/api/queue")).status == 409
        assert (await asked(running, "/comfyui/")).json()["target"] == "/"
        assert (await asked(running, "/comfyui/api/queue?x")).json()["target"] == "/api/queue?x"
    async with daemon({"a": stub()}) as running:
        assert (await asked(running, "/comfyui/")).status == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/sleep", "//sleep", "/sleep/", "/SLEEP", "/%73leep", "/%2573leep", "/x/../sleep"),
        *("/sleep%0a", "/sleep%0d%0a?level=1", "/sleep%20", "/%09sleep", "/sleep%00"),
        *("/./wake_up?tags=weights", "/collective_rpc", "/pause", "/resume", "/update_weights"),
    ],
)
async def test_nobody_controls_a_model_server_behind_the_daemons_back(path: str) -> None:
    """The spelling of the path does not matter; upstream.allowControl allows it."""
    async with daemon({"a": stub()}) as running:
        assert (await asked(running, f"/upstream/a{path}", "POST")).status == 403
    async with daemon({"a": stub()}, upstream={"allowControl": True}) as running:
        assert (await asked(running, f"/upstream/a{path}", "POST")).status == 200


async def test_profiles_hold_below_upstream() -> None:
    """Profiles apply below /upstream, but selectors do not."""
    whole: dict[str, Any] = {
        "selectors": {"s": {"strategy": "pin", "targets": ["a"]}},
        "profiles": {"p": {"pins": {"org/x": "a"}}},
    }
    async with daemon({"a": stub()}, **whole) as running:
        assert (await asked(running, "/upstream/s/x")).status == 404
        await ask(running.port, "PUT", "/api/profiles/active", {"name": "p"})
        assert (await asked(running, "/upstream/org/x/y")).json()["target"] == "/y"


async def websocket(port: int, path: str, after: bytes = b"") -> tuple[trio.SocketStream, bytes]:
    """Request a websocket; return the connection, the answer's head and any bytes after it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{UPGRADE}\r\n"
    await stream.send_all(head.encode() + after)
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = await stream.receive_some()
        assert piece, answer
        answer += piece
    return stream, answer


async def until(stream: trio.SocketStream, got: bytes, end: bytes) -> bytes:
    while not got.endswith(end):
        piece = await stream.receive_some()
        assert piece, got
        got += piece
    return got


async def test_a_websocket_passes_both_ways() -> None:
    """Bytes sent together with the request are not lost, and the model stays in use."""
    async with daemon({"a": stub()}) as running:
        stream, answer = await websocket(running.port, "/upstream/a/ws", after=b"early ")
        async with stream:
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"upgrade: websocket" in head.lower()
            assert b"sec-websocket-accept: x" in head.lower()
            assert await until(stream, rest, b"early ") == b"hello early "
            await stream.send_all(b"x" * 300_000 + b"!")
            assert len(await until(stream, b"", b"!")) == 300_001
            assert running.supervisor.servers["a"].snapshot().in_flight == 1
            await stream.send_all(b"bye")
            await until(stream, b"", b"bye")
            assert await stream.receive_some() == b""
        with trio.fail_after(2):
            while running.supervisor.servers["a"].snapshot().in_flight:
                await trio.sleep(0.01)


async def test_a_client_that_leaves_a_websocket_ends_it() -> None:
    """The connection to the model server ends too."""
    async with daemon({"a": stub()}) as running:
        stream, _ = await websocket(running.port, "/upstream/a/ws")
        await stream.aclose()
        with trio.fail_after(2):
            while running.supervisor.servers["a"].snapshot().in_flight:
                await trio.sleep(0.01)


async def test_a_refused_websocket_is_an_answer_like_any_other() -> None:
    """The connection ends with the answer."""
    async with daemon({"a": stub()}) as running:
        stream, answer = await websocket(running.port, "/upstream/a/ws/refuse", after=b"early")
        async with stream:
            assert answer.startswith(b"HTTP/1.1 403 ")
            with trio.fail_after(2):
                while await stream.receive_some():
                    pass


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_no_request_hides_behind_a_websockets(framing: str) -> None:
    """A server that ignores the upgrade would read the hidden bytes as the next request."""
    async with daemon({"a": stub()}) as running:
        await asked(running, "/upstream/a/")
        hidden = b"POST /sleep HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            head = f"GET /upstream/a/ws HTTP/1.1\r\nhost: localhost\r\n{UPGRADE}{framing}\r\n\r\n"
            await stream.send_all(head.encode() + hidden)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        port = int(running.supervisor.servers["a"].model.proxy.rpartition(":")[2])
        assert (await ask(port, "GET", "/stats")).json()["slept"] == 0


async def test_an_upgrade_header_alone_is_no_websocket() -> None:
    """Without Connection: upgrade, the request does not ask for a websocket."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "/upstream/a/ws", upgrade="websocket")
        assert reply.status == 200


async def test_websockets_may_be_kept_from_starting_a_model() -> None:
    """With compat.ignoreWebsockets, a websocket gets a 409 while the model is stopped."""
    async with daemon({"a": stub(compat={"ignoreWebsockets": True})}) as running:
        stream, answer = await websocket(running.port, "/upstream/a/ws")
        async with stream:
            assert answer.startswith(b"HTTP/1.1 409 ")
        assert running.state("a") == "stopped"
        await asked(running, "/upstream/a/")
        stream, answer = await websocket(running.port, "/upstream/a/ws")
        async with stream:
            assert answer.startswith(b"HTTP/1.1 101 ")


async def test_elsewhere_a_websocket_is_not_offered() -> None:
    """The daemon ignores the upgrade and answers the request."""
    async with daemon({"a": stub()}) as running:
        stream, answer = await websocket(running.port, "/health")
        async with stream:
            assert answer.startswith(b"HTTP/1.1 200 ")
