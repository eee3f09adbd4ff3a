"""API keys from the client's request to the model server and the metrics; secrets stay hidden."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio

from configschema import ConfigError, parse
from proxy.forwarding.inflight import Call
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

CHAT = "/v1/chat/completions"
KEYS: list[Any] = ["sk-plain", {"name": "app", "key": "sk-app"}]
READER = {"name": "dash", "key": "sk-dash", "read": True}
ALL: dict[str, Any] = {"apiKeys": [*KEYS, READER]}
PROTOCOL = "openai-insecure-api-key."
SECRET = "a-secret-of-the-environment"  # noqa: S105 -- not a real secret


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


async def asked(
    running: Daemon, method: str, path: str, key: str = "", body: Any = b"", **headers: str
) -> Reply:
    shown = {"x-api-key": key} if key else {}
    return await ask(running.port, method, path, body, {**shown, **headers})


async def chatted(running: Daemon, headers: dict[str, str]) -> Reply:
    return await ask(running.port, "POST", CHAT, {"model": "a"}, headers)


async def websocket(running: Daemon, path: str, protocols: str) -> bytes:
    """Request a websocket; return all bytes until its end."""
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    fields = ["host: localhost", "connection: upgrade", "upgrade: websocket"]
    head = "\r\n".join([f"GET {path} HTTP/1.1", *fields, f"sec-websocket-protocol: {protocols}"])
    async with stream:
        await stream.send_all(f"{head}\r\n\r\nbye".encode())
        got = b""
        with trio.fail_after(3):
            while piece := await stream.receive_some():
                got += piece
                if b" 401 " in got:
                    break
    return got


def counted(metrics: Reply) -> dict[str, float]:
    """Return the number of requests of each key."""
    start = 'llamadoze_key_requests_total{key="'
    lines = [line for line in metrics.body.decode().splitlines() if line.startswith(start)]
    pairs = [line.removeprefix(start).split('"} ') for line in lines]
    return {name: float(count) for name, count in pairs}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-plain"},
        {"authorization": "bearer sk-app"},
        {"authorization": basic("sk-plain")},
        {"x-api-key": "sk-app"},
        {"api-key": "sk-plain"},
        {"sec-websocket-protocol": f"realtime, {PROTOCOL}sk-app"},
        {"api-key": "sk-plain", "x-api-key": "sk-plain", "authorization": "Bearer sk-plain"},
    ],
    ids=str,
)
async def test_each_way_to_show_a_key_is_served_and_goes_no_further(
    headers: dict[str, str],
) -> None:
    """The model server does not see the key."""
    async with daemon({"a": stub()}, **ALL) as running:
        reply = await chatted(running, headers)
        assert reply.status == 200
        said = str(reply.json()["headers"])
        assert "sk-" not in said
        assert "basic" not in said.lower()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-other"},
        {"authorization": "sk-plain"},
        {"authorization": basic("")},
        {"x-api-key": "sk-plai"},
        {"x-api-key": "SK-PLAIN"},
        {"api-key": "sk-plain,sk-app"},
        {"sec-websocket-protocol": "sk-plain"},
        {"sec-websocket-protocol": f"{PROTOCOL}sk-other"},
        {"cookie": "x-api-key=sk-plain"},
    ],
    ids=str,
)
async def test_without_a_known_key_nothing_is_asked(headers: dict[str, str]) -> None:
    """No model starts; the 401 says how to send a key, but does not repeat a key that was sent."""
    async with daemon({"a": stub()}, **ALL) as running:
        for reply in (
            await chatted(running, headers),
            await asked(running, "GET", "/running", **headers),
            await asked(running, "GET", "/upstream/a/", **headers),
        ):
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == 'Basic realm="llamadoze"'
            assert reply.json()["error"]["type"] == "authentication_error"
            assert b"sk-" not in reply.body
        assert running.state("a") == "stopped"


@pytest.mark.parametrize("path", ["/upstream/a/ws", "/v1/realtime?model=a"])
async def test_a_websockets_key_stands_among_its_protocols(path: str) -> None:
    """A browser can set no other header for a websocket."""
    async with daemon({"a": stub()}, **ALL) as running:
        got = await websocket(running, path, f"realtime, {PROTOCOL}sk-app")
        assert got.startswith(b"HTTP/1.1 101 ")
        for protocols in ("realtime", f"realtime, {PROTOCOL}sk-other", PROTOCOL):
            got = await websocket(running, path, protocols)
            assert got.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/running",
            "/logs",
            "/metrics",
            "/v1/models",
            "/v1/models/a",
            "/models",
            "/api/profiles",
        ),
        *("/api/version", "/api/pause", "/running/", "//running", "/ready", "/health"),
    ],
)
async def test_a_key_for_reading_reads(path: str) -> None:
    """GET and HEAD work, however the path is spelled."""
    async with daemon({"a": stub()}, **ALL) as running:
        assert (await asked(running, "GET", path, "sk-dash")).status == 200
        head = await asked(running, "HEAD", path, "sk-dash")
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/unload"), ("HEAD", "/unload"), ("GET", "//unload/"), ("POST", "/api/pause")),
        *(("POST", CHAT), ("POST", "/chat/completions/"), ("GET", "/props?model=a")),
        *(("GET", "/upstream/a/"), ("POST", "/upstream/a/x"), ("GET", "/comfyui/")),
        *(("GET", "/v1/responses/resp_1?model=a"), ("POST", "/api/models/load/a")),
        *(("POST", "/models/load"), ("PUT", "/api/profiles/active"), ("POST", "/api/reload")),
        *(("POST", "/api/models/unload"), ("POST", "/nothing"), ("DELETE", "/running")),
    ],
)
async def test_a_key_for_reading_changes_nothing_and_asks_no_model(method: str, path: str) -> None:
    """The refusal names the key; a key without `read` may do the same."""
    async with daemon({"a": stub(), "comfyui_auto": stub()}, **ALL) as running:
        reply = await asked(running, method, path, "sk-dash", {"model": "a"})
        assert reply.status == 403
        if method != "HEAD":
            assert reply.json()["error"]["code"] == "read_only_key"
            assert "'dash'" in reply.json()["error"]["message"]
        assert running.state("a") == "stopped"
        other = await asked(running, method, path, "sk-plain", {"model": "a"})
        assert other.status not in (401, 403)


async def test_requests_are_counted_by_their_keys_name() -> None:
    """A key without a name is not counted; no key appears in the metrics."""
    async with daemon({"a": stub()}, **ALL) as running:
        for key in ("sk-app", "sk-app", "sk-plain", "sk-other"):
            await asked(running, "POST", CHAT, key, {"model": "a"})
        await asked(running, "GET", "/upstream/a/x", "sk-app")
        metrics = await asked(running, "GET", "/metrics", "sk-dash")
        assert counted(metrics)["app"] == 3
        assert set(counted(metrics)) <= {"app", "dash"}
        assert b"sk-" not in metrics.body


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("Bearer sk-plain", "Bearer sk-other", b" 200 "),
        ("Bearer sk-plain", basic("sk-app"), b" 200 "),
        ("Bearer sk-other", "Bearer sk-plain", b" 401 "),
        ("Bearer sk-dash", "Bearer sk-plain", b" 403 "),
    ],
)
async def test_of_two_keys_in_one_place_the_first_counts(
    first: str, second: str, status: bytes
) -> None:
    """The model server gets neither key if both are ours."""
    fields = f"host: localhost\r\nauthorization: {first}\r\nauthorization: {second}"
    body = '{"model": "a"}'
    request = f"POST {CHAT} HTTP/1.1\r\n{fields}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    async with (
        daemon({"a": stub()}, **ALL) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        await stream.send_all(request.encode())
        answer = await stream.receive_some()
    assert status in answer.partition(b"\r\n")[0]
    theirs = b"authorization: Bearer sk-other" in answer
    assert theirs == ("sk-other" in second)
    assert b"sk-plain" not in answer
    assert b"Basic " not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("path", ["/", "/health", "/wol-health", "/ready", "/favicon.ico"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_tells_nothing_of_anybody_needs_no_key(method: str, path: str) -> None:
    """These routes reveal nothing, and Ollama's clients begin with HEAD / without a key."""
    async with daemon({"a": stub()}, **ALL) as running:
        reply = await asked(running, method, path)
        assert reply.status == (204 if path == "/favicon.ico" else 200)
        assert method == "GET" or reply.body == b""
        assert (await asked(running, method, f"{path}/x".replace("//", "/"))).status == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/running", 200), ("GET", "/v1/models", 200), ("GET", "/metrics", 200)),
        *(("GET", "/logs", 200), ("GET", "/", 200), ("GET", "/unload", 200), ("GET", "/x", 404)),
        *(("POST", "/api/models/load/a", 200), ("POST", "/v1/chat/completions", 404)),
        *(("DELETE", "/health", 405), ("GET", "/upstream/nobody/x", 404), ("GET", "/ready", 200)),
    ],
)
async def test_no_cache_keeps_our_own_answers(method: str, path: str, status: int) -> None:
    """One client may read what another client may not."""
    async with daemon({"a": stub()}, **ALL) as running:
        reply = await asked(running, method, path, "sk-plain")
        assert (reply.status, reply.headers["cache-control"]) == (status, "no-store")
        assert (await asked(running, method, "/running")).headers["cache-control"] == "no-store"


async def test_what_caches_do_with_a_models_answer_is_its_servers_business() -> None:
    """The daemon adds no cache header."""
    async with daemon({"a": stub()}) as running:
        assert "cache-control" not in (await chatted(running, {})).headers


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("[null]", "apiKeys.0: the key is empty"),
        ("['']", "apiKeys.0: the key is empty"),
        ("[sk-one, ~]", "apiKeys.1: the key is empty"),
        ("[{name: x}]", "apiKeys.0: the key is empty"),
        ("['sk one']", "apiKeys.0: a key cannot contain spaces"),
        ("[{name: 'a b', key: sk}]", "apiKeys.0.name: a name is"),
        (
            "[{name: x, key: sk-1}, {name: x, key: sk-2}]",
            "apiKeys.1.name: another key has the name 'x' already",
        ),
        ("[{key: sk-1, inFlight: 2}]", "apiKeys.0: a key with limits or a share needs a name"),
        ("[{key: sk-1, share: 2}]", "apiKeys.0: a key with limits or a share needs a name"),
        (
            "[{name: x, key: sk-1, share: 0}]",
            "apiKeys.0.share: expected a whole number, 1 to 100",
        ),
    ],
)
def test_what_would_let_everybody_in_is_no_key(keys: str, fault: str) -> None:
    """For example, an empty variable must not become a key."""
    with pytest.raises(ConfigError) as caught:
        parse(f"apiKeys: {keys}")
    assert [fault in str(problem) for problem in caught.value.problems] == [True]


async def test_how_models_run_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable appears as it is written, and an address without its password."""
    monkeypatch.setenv("TEST_SECRET", SECRET)
    model = stub("--word", "${env.TEST_SECRET}", proxy="http://me:pass-word@127.0.0.1:${PORT}")
    async with daemon({"a": model}, **ALL) as running:
        assert (await asked(running, "GET", "/upstream/a/", "sk-app")).status == 200
        reply = await asked(running, "GET", "/running", "sk-dash")
        (row,) = reply.json()["running"]
        assert "${env.TEST_SECRET}" in row["cmd"]
        assert row["proxy"].startswith("http://***@127.0.0.1:")
        loaded = await asked(running, "POST", "/api/models/load/a", "sk-app")
        for said in (reply.body, loaded.body):
            assert SECRET.encode() not in said
            assert b"pass-word" not in said


@pytest.mark.parametrize(
    "header",
    [
        (b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.sk-secret"),
        (b"authorization", b"Bearer sk-secret"),
        (b"api-key", b"sk-secret"),
    ],
)
async def test_a_key_is_not_among_what_events_show(header: tuple[bytes, bytes]) -> None:
    """A read-only key may read the events."""
    call = Call("id", "GET", "/upstream/a/ws", [header], "127.0.0.1")
    assert "sk-secret" not in json.dumps(call.entry())
