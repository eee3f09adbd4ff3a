"""Probes of load balancers, containers and llama-swap's clients: is the daemon there?"""

from __future__ import annotations

import pytest
import trio

from tests.peers.client import Client, ask
from tests.proxy.daemon import daemon, stub

PATHS = ("/health", "/wol-health")


@pytest.mark.parametrize("path", PATHS)
async def test_a_probe_is_answered_without_a_key(path: str) -> None:
    """GET and HEAD work in any spelling of the path, and the answer has the request's id."""
    async with daemon({"a": stub()}, apiKeys=["sk-one"]) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            for method, body in (("GET", b"OK"), ("HEAD", b"")):
                for spelling in (path, f"/{path}/"):
                    reply = await client.ask(method, spelling, b"", {"x-request-id": "mine"})
                    assert (reply.status, reply.body) == (200, body)
                    assert reply.headers["content-length"] == "2"
                    assert reply.headers["content-type"].startswith("text/plain")
                    assert reply.headers["x-request-id"] == reply.headers["request-id"] == "mine"
            unnamed = await client.ask("GET", path)
            assert unnamed.headers["x-request-id"] == unnamed.headers["request-id"] != ""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_a_probe_by_another_method_is_told_which_there_are(method: str, path: str) -> None:
    """The status is 405 and not 404, because the path is right (RFC 9110, 15.5.6)."""
    async with daemon({"a": stub()}, apiKeys=["sk-one"]) as running:
        reply = await ask(running.port, method, path)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
async def test_a_probe_may_speak_http_1_0(path: str) -> None:
    """HAProxy's probes have no Host; the connection ends with the answer."""
    async with (
        daemon({"a": stub()}) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with trio.fail_after(3):
            said = b"".join([bytes(piece) async for piece in stream])
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close" in head
    assert body == b"OK"
