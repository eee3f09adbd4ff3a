"""Requests for a response or a video go to the model that made it; odd spellings of paths."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from proxy.forwarding import madeby
from proxy.forwarding.madeby import MadeBy
from proxy.naming.routes import NamedIn, route_of
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

BOTH = {"g": {"swap": False, "members": ["a", "b"]}}
CHAT = "/v1/chat/completions"


async def make(running: Daemon, model: str, made: str, path: str = "/v1/responses") -> None:
    """Let a model answer with the id of what it made."""
    reply = await ask(running.port, "POST", path, {"model": model, "raw": True, "id": made})
    assert (reply.status, reply.json()["id"]) == (200, made)


async def who_answers(running: Daemon, path: str, method: str = "GET") -> str:
    """Return the model that answered."""
    reply = await ask(running.port, method, path)
    assert reply.status == 200, reply.body
    return next(name for name in "ab" if running.pid(name) == reply.json()["pid"])


async def asked(running: Daemon, method: str, path: str, body: Any = b"") -> Reply:
    return await ask(running.port, method, path, body)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/videos"])
async def test_what_was_made_is_asked_of_who_made_it(path: str) -> None:
    """This applies to every method and to paths below the id, in any order of requests."""
    kind = "resp" if path == "/v1/responses" else "video"
    async with daemon({"a": stub(aliases=["al"]), "b": stub()}, groups=BOTH) as running:
        await make(running, "al", f"{kind}_1", path)
        await make(running, "b", f"{kind}-2", path)
        for method in ("GET", "DELETE", "POST"):
            assert await who_answers(running, f"{path}/{kind}_1", method) == "a"
            assert await who_answers(running, f"{path}/{kind}-2", method) == "b"
        assert await who_answers(running, f"{path}/{kind}_1/input_items?limit=2") == "a"
        assert await who_answers(running, f"{path}/{kind}-2/content") == "b"


async def test_the_query_names_another_model() -> None:
    """The query overrides the remembered model, and is required if no model is remembered."""
    async with daemon({"a": stub(), "b": stub()}, groups=BOTH) as running:
        await make(running, "a", "resp_1")
        assert await who_answers(running, "/v1/responses/resp_1?model=b") == "b"
        assert await who_answers(running, "/v1/responses/resp_unknown?model=b") == "b"
        assert await who_answers(running, "/v1/videos/anything?model=a", "DELETE") == "a"


@pytest.mark.parametrize("path", ["/v1/responses/resp_9", "/v1/videos/video_9/content"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_nobody_has_made_is_not_found(method: str, path: str) -> None:
    """The error says how to name the model, and no model starts."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, method, path)
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/json"
        assert "'model'" in reply.json()["error"]["message"]
        assert running.state("a") == "stopped"


def test_the_id_in_a_streams_first_event_counts() -> None:
    """A client that streams may request the result later."""
    made = MadeBy()
    made.note(
        b'event: x\ndata: {"type":"x","response":{"id": "resp_s","object":"response"}}\n', "a"
    )
    assert made.model_of("resp_s") == "a"


async def test_the_target_is_the_path_as_it_was_meant() -> None:
    """The model server gets its own route with the query."""
    async with daemon({"a": stub()}) as running:
        await make(running, "a", "resp_1")
        for path in ("/v1/responses/resp_1?x=%20", "/v1/v1/responses/resp_1/?x=%20"):
            target = (await asked(running, "GET", path)).json()["target"]
            assert target == "/v1/responses/resp_1?x=%20"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1/responses/x/../../../sleep",
            "/v1/responses/%2e%2e/%2e%2e/sleep",
            "/v1/responses/..",
        ),
        *("/v1/videos/..%2fload_lora_adapter", "/v1/videos/%252e%252e/x", "/v1/responses/a%5cb"),
        *("/v1/responses/a%20b", "/v1/responses/a;b", "/v1/responses/a/./b"),
    ],
)
async def test_an_id_is_no_way_to_another_route(path: str) -> None:
    """The model server does not receive such a request, whatever the method."""
    async with daemon({"a": stub()}) as running:
        for method in ("GET", "POST", "DELETE"):
            assert (await asked(running, method, f"{path}?model=a")).status == 404
        assert running.state("a") == "stopped"


@pytest.mark.parametrize(
    "said",
    [
        *(
            b"",
            b"{}",
            b'{"id": "chatcmpl-1"}',
            b'{"id": "resp_"}',
            b'{"id": 7}',
            b'{"id": "resp 1"}',
        ),
        *(b'{"id": "resp_%b"}' % (b"x" * 201), b'{"id":"response_1"}', b'"resp_1"', b"\xff" * 99),
    ],
)
def test_what_is_no_such_id_is_not_kept(said: bytes) -> None:
    """Errors, chats and overlong ids are ignored."""
    made = MadeBy()
    made.note(said, "a")
    assert not made._known


def test_the_first_id_of_an_answer_is_its_own() -> None:
    """The ids of an answer's parts come after its own id."""
    made = MadeBy()
    made.note(b'{"id":"resp_1","previous": {"id":"resp_2"}}', "a")
    assert (made.model_of("resp_1"), made.model_of("resp_2")) == ("a", "")


def test_only_the_last_ids_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is made again counts as new."""
    monkeypatch.setattr(madeby, "MOST", 3)
    made = MadeBy()
    for number in (1, 2, 3, 1, 4):
        made.note(b'{"id": "resp_%d"}' % number, f"m{number}")
    assert [made.model_of(f"resp_{number}") for number in (1, 2, 3, 4)] == ["m1", "", "m3", "m4"]


def test_many_ids_take_bounded_room() -> None:
    """The number of clients does not matter."""
    made = MadeBy()
    for number in range(madeby.MOST + 50):
        made.note(b'{"id": "video-%d"}' % number, "a")
    assert len(made._known) == madeby.MOST
    assert made.model_of("video-0") == ""


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
def test_any_method_goes_to_what_was_made(method: str) -> None:
    """The id is the segment after the name of the route."""
    route = route_of(method, "/v1/videos/video_1/content")
    assert route
    assert (route.made, route.named_in, route.filtered) == ("video_1", NamedIn.QUERY, False)
    assert route.target == b"/v1/videos/video_1/content"


async def test_a_realtime_websocket_goes_to_the_model_of_its_query() -> None:
    """The query is passed on, and bytes pass in both directions."""
    async with daemon({"a": stub()}) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        head = "GET /v1/realtime?model=a HTTP/1.1\r\nhost: localhost\r\n"
        upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n"
        async with stream:
            await stream.send_all(f"{head}{upgrade}early bye".encode())
            got = b""
            while piece := await stream.receive_some():
                got += piece
        assert got.startswith(b"HTTP/1.1 101 ")
        assert got.endswith(b"hello early bye")


@pytest.mark.parametrize("query", ["", "?model=", "?model=nobody", "?voice=a"])
async def test_a_realtime_request_without_a_model_is_refused(query: str) -> None:
    """The request for a websocket has no body that could name a model."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "GET", f"/v1/realtime{query}")
        assert (reply.status, reply.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/v1/chat/completions", CHAT),
        ("//v1/v1//messages/count_tokens/", "/v1/messages/count_tokens"),
        ("/chat/completions", CHAT),
        ("/completions", "/v1/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/messages", "/v1/messages"),
        ("/responses/", "/v1/responses"),
        ("/v1/chat/completions/", CHAT),
        ("//v1/chat/completions", CHAT),
        ("/v1//chat///completions//", CHAT),
        ("/v1/chat%2Fcompletions", CHAT),
        ("/v1/rerank/", "/v1/rerank"),
        ("//rerank", "/rerank"),
        ("/v/chat/completions/", "/chat/completions"),
        ("/v1/responses/", "/v1/responses"),
    ],
)
async def test_addresses_that_clients_join_badly_are_understood(path: str, target: str) -> None:
    """The base URL may have a slash at its end, /v1 twice, or no /v1."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "POST", path, {"model": "a"})
        assert (reply.status, reply.json()["target"]) == (200, target)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/v1/models/", "/v1/models"),
        ("//v1//models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/models/a/", "/models/a"),
        ("/running/", "/running"),
        ("//health//", "/health"),
        ("//", "/"),
        ("/api//version/", "/api/version"),
    ],
)
async def test_views_answer_to_such_addresses_as_to_the_plain_one(path: str, plain: str) -> None:
    """The daemon does not redirect, because few clients follow redirects."""
    async with daemon({"a": stub()}) as running:
        reply, other = await asked(running, "GET", path), await asked(running, "GET", plain)
        assert (reply.status, reply.headers["content-type"]) == (200, other.headers["content-type"])
        assert reply.body == other.body


@pytest.mark.parametrize(
    "path", ["/v1/v1/v1/messages", "/v2/chat/completions", "/v1/chat", "/chat", "/v1"]
)
async def test_other_addresses_are_not_guessed_at(path: str) -> None:
    """Other paths are not found."""
    async with daemon({"a": stub()}) as running:
        assert (await asked(running, "POST", path, {"model": "a"})).status == 404
