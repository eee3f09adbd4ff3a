"""Every way to name a model, and how the daemon passes on a body."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import attrs
import psutil
import pytest
import trio
from structlog.testing import capture_logs

from tests.peers.client import Client, ask
from tests.proxy.daemon import daemon, stub

JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=B"}
CHAT = "/v1/chat/completions"


def form(model: str, file: bytes = b"RIFF", last: bool = False) -> bytes:
    field = b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n' % model.encode()
    head = b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    parts = [field, head + file + b"\r\n"]
    return b"".join(reversed(parts) if last else parts) + b"--B--\r\n"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/v1/rerank", "/v1/rerank"),
        ("/reranking", "/reranking"),
        ("/infill", "/infill"),
        ("/completion", "/completion"),
        ("/v1/audio/speech", "/v1/audio/speech"),
        ("/v1/images/generations?n=1", "/v1/images/generations?n=1"),
        ("/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/v/chat/completions?a=%2f", "/chat/completions?a=%2f"),
        ("/audioapi/v1/tasks/run", "/v1/tasks/run"),
    ],
)
async def test_every_family_reaches_its_model(path: str, target: str) -> None:
    """Routes keep their query; two routes lose a prefix."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", path, {"model": "a"}, JSON)
        assert reply.json()["target"] == target


@pytest.mark.parametrize("path", ["/props", "/v1/audio/voices", "/sdapi/v1/loras"])
async def test_some_requests_name_their_model_in_the_query(path: str) -> None:
    """Without the name, the daemon cannot know the model."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "GET", f"{path}?model=a&x=1")
        assert reply.json()["target"] == f"{path}?model=a&x=1"
        nobody = await ask(running.port, "GET", path)
        assert (nobody.status, nobody.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("last", [False, True])
async def test_a_form_names_its_model_and_goes_on_as_it_is(last: bool) -> None:
    """The field may stand anywhere, and the body may have a length or be chunked."""
    body = form("a", bytes(range(256)), last)
    async with daemon({"a": stub()}) as running:
        for more in ({}, {"transfer-encoding": "chunked"}):
            path = "/v1/audio/transcriptions"
            reply = await ask(running.port, "POST", path, body, {**FORM, **more})
            assert reply.json()["body"].encode("latin-1") == body


async def test_a_forms_model_is_renamed_and_its_file_left_alone() -> None:
    """useModelName also applies to forms."""
    async with daemon({"a": stub(useModelName="whisper-large")}) as running:
        body = form("a", bytes(range(256)))
        reply = await ask(running.port, "POST", "/v1/images/edits", body, FORM)
        expected = form("whisper-large", bytes(range(256)))
        assert reply.json()["body"].encode("latin-1") == expected
        assert f"content-length: {len(expected)}" in reply.json()["headers"]


async def test_a_url_encoded_form_names_its_model() -> None:
    """The query can name the model too, and a JSON body is read despite curl's content type."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    async with daemon({"a": stub()}) as running:
        for path, body in (
            (CHAT, b"model=a&x=1"),
            (f"{CHAT}?model=a", b""),
            (CHAT, b'{"model":"a"}'),
        ):
            reply = await ask(running.port, "POST", path, body, kind)
            assert (reply.status, reply.json()["body"]) == (200, body.decode())


async def test_an_upload_is_slowed_down_to_what_its_server_takes() -> None:
    """A slow server receives 200 MB, and the daemon's memory grows by less than 16 MiB."""
    size = 200 * 1024 * 1024
    chunk = bytes(range(256)) * 4096
    field = form("a").partition(b"RIFF")[0]
    end = b"\r\n--B--\r\n"
    head = (
        f"POST /v1/audio/transcriptions?count&pause=0.002 HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: {FORM['content-type']}\r\n"
        f"content-length: {len(field) + size + len(end)}\r\n\r\n"
    )
    digest = hashlib.sha256(field)
    async with daemon({"a": stub()}) as running:
        await ask(running.port, "POST", CHAT, {"model": "a"})
        client = await Client.connect(running.port)
        before = peak = psutil.Process().memory_info().rss
        async with client.stream:
            await client.stream.send_all(head.encode() + field)
            for _ in range(size // len(chunk)):
                await client.stream.send_all(chunk)
                digest.update(chunk)
                peak = max(peak, psutil.Process().memory_info().rss)
            await client.stream.send_all(end)
            digest.update(end)
            reply = await answer(client)
    assert reply == {"size": len(field) + size + len(end), "digest": digest.hexdigest()}
    assert peak - before < 16 * 1024 * 1024


async def answer(client: Client) -> Any:
    text = b""
    while not text.endswith(b"}"):
        text += await client.stream.receive_some()
    return json.loads(text.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_gets_413(chunked: bool) -> None:
    """The error names the setting to change, and the next request succeeds."""
    more = {"transfer-encoding": "chunked"} if chunked else {}
    async with daemon({"a": stub()}, maxBody=1, maxUpload=2) as running:
        for body, kind, setting in (
            (b" " * 1_100_000 + b'{"model":"a"}', JSON, "maxBody"),
            (form("a", b"x" * 2_200_000, last=True), FORM, "maxUpload"),
            (form("a", b"x" * 2_200_000), FORM, "maxUpload"),
        ):
            path = "/v1/audio/transcriptions"
            reply = await ask(running.port, "POST", path, body, {**kind, **more})
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (413, "body_too_large")
            assert setting in error["message"]
        assert (await ask(running.port, "POST", CHAT, {"model": "a"}, JSON)).status == 200
        assert running.supervisor.servers["a"].snapshot().in_flight == 0


async def test_millions_of_fields_hold_up_nobody() -> None:
    """The fields are not read, and neither are values that cannot be written again."""
    async with daemon({"a": stub(useModelName="b")}) as running:
        with trio.fail_after(2):
            reply = await ask(running.port, "POST", CHAT, b"a=b&" * 2_000_000)
        assert reply.status == 404
        for odd in ("[" * 970 + "]" * 970, "1e999"):
            body = f'{{"model": "a", "x": {odd}}}'.encode()
            reply = await ask(running.port, "POST", CHAT, body, JSON)
            assert reply.status in (200, 400, 404)


async def test_filters_hold_in_their_order() -> None:
    """The order: rename, remove, set, and then set for the requested name."""
    filters = {
        "stripParams": "temperature",
        "setParams": {"top_k": 5, "effort": "low"},
        "setParamsByID": {"a:high": {"effort": "high"}},
    }
    async with daemon({"a": stub(useModelName="real", filters=filters)}) as running:
        body = {"model": "a:high", "temperature": 1, "effort": "none"}
        reply = await ask(running.port, "POST", CHAT, body, JSON)
        sent = json.loads(reply.json()["body"])
        assert sent == {"model": "real", "effort": "high", "top_k": 5}
        assert f"content-length: {len(reply.json()['body'])}" in reply.json()["headers"]


async def test_selectors_and_profiles_say_who_answers() -> None:
    """The body names the chosen model; a reload activates no profile."""
    whole: dict[str, Any] = {
        "selectors": {"any": {"strategy": "warm", "targets": ["a", "b"]}},
        "profiles": {"work": {"pins": {"gpt-4": "any", "b": None}}},
    }
    async with daemon({"a": stub(), "b": stub()}, **whole) as running:

        async def asked(name: str) -> str:
            reply = await ask(running.port, "POST", CHAT, {"model": name}, JSON)
            body = reply.json().get("body")
            return str(json.loads(body)["model"] if body else reply.status)

        assert [await asked(name) for name in ("b", "any", "gpt-4")] == ["b", "b", "404"]
        active = "/api/profiles/active"
        reply = await ask(running.port, "PUT", active, {"name": "work"}, JSON)
        assert reply.json() == {"active": "work"}
        assert [await asked(name) for name in ("gpt-4", "b", "a")] == ["b", "404", "a"]
        listed = (await ask(running.port, "GET", "/api/profiles")).json()
        assert listed["profiles"][0]["pins"] == {"gpt-4": "any", "b": None}
        wrong: list[tuple[Any, int]] = [({"name": "nobody"}, 404), ({}, 400), ([], 400)]
        wrong += [({"name": 1}, 400), (b"\xff\xfe\0\1", 400), (b"[" * 60_000, 400)]
        for body, status in wrong:
            assert (await ask(running.port, "PUT", active, body, JSON)).status == status
        running.supervisor.reload(attrs.evolve(running.supervisor.config))
        assert (await ask(running.port, "GET", "/api/profiles")).json()["active"] is None


async def test_keys_guard_all_routes_and_go_no_further() -> None:
    """The log says which request was refused, and why."""
    with capture_logs() as lines:
        async with daemon({"a": stub()}, apiKeys=["sk-1"]) as running:
            await ask(running.port, "GET", "/logs", b"", {"x-request-id": "mine"})
    (refused,) = [line for line in lines if line.get("request_id") == "mine"]
    assert (refused["log_level"], refused["status"]) == ("warning", 401)
    assert "an API key is required" in refused["event"]
    async with daemon({"a": stub()}, apiKeys=["sk-1"]) as running:
        for method, path in (("POST", CHAT), ("GET", "/logs"), ("GET", "/upstream/a/x")):
            reply = await ask(running.port, method, path, {"model": "a"})
            assert reply.status == 401
            assert reply.headers["www-authenticate"].startswith("Basic")
        assert (await ask(running.port, "GET", "/health")).status == 200
        key = {"authorization": "Bearer sk-1", **JSON}
        reply = await ask(running.port, "POST", CHAT, {"model": "a"}, key)
        assert not any("sk-1" in line for line in reply.json()["headers"])


async def test_every_answer_has_the_requests_id() -> None:
    """The client's own id is kept if it is valid; the model server receives the id too."""
    async with daemon({"a": stub()}) as running:
        mine = {"x-request-id": "mine-1", "traceparent": "00-1-2-01", **JSON}
        reply = await ask(running.port, "POST", CHAT, {"model": "a"}, mine)
        assert reply.headers["x-request-id"] == "mine-1"
        assert {"x-request-id: mine-1", "traceparent: 00-1-2-01"} <= set(reply.json()["headers"])
        for method, path in (("GET", "/running"), ("GET", "/nothing"), ("OPTIONS", "/x")):
            reply = await ask(running.port, method, path, b"", {"x-request-id": "bad id"})
            assert len(reply.headers["x-request-id"]) == 16


async def test_errors_come_in_the_form_that_is_asked_for() -> None:
    """The forms are JSON, plain text and an HTML page."""
    async with daemon({"a": stub()}) as running:
        for path in (CHAT, "/nothing"):
            text = await ask(running.port, "POST", path, {"model": "<b>"}, {"accept": "text/plain"})
            assert text.body.startswith(b"llamadoze: ")
            page = await ask(running.port, "POST", path, {"model": "<b>"}, {"accept": "text/html"})
            assert page.headers["content-type"].startswith("text/html")
            assert b"<b>" not in page.body
            odd = b'{"model": "\\ud800"}'
            for kind in ("text/plain", "text/html", "*/*"):
                reply = await ask(running.port, "POST", path, odd, {"accept": kind})
                assert reply.status in (404, 405)


async def test_an_operator_cancels_a_request() -> None:
    """The client gets an error, and the model server stops."""
    async with daemon({"a": stub()}) as running, trio.open_nursery() as nursery:
        await ask(running.port, "POST", CHAT, {"model": "a"}, JSON)

        async def wait() -> None:
            reply = await ask(running.port, "POST", CHAT, {"model": "a", "delay": 5}, JSON)
            assert (reply.status, reply.json()["error"]["code"]) == (499, "cancelled")
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        await trio.sleep(0.1)
        assert (await ask(running.port, "POST", "/api/inflight/2/cancel")).json() == {"msg": "ok"}
        for number in ("99", "x", "9" * 5000):
            path = f"/api/inflight/{number}/cancel"
            assert (await ask(running.port, "POST", path)).status == 404
        await trio.sleep(2)
        raise AssertionError("it was not cancelled")
