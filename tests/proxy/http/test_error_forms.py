"""Errors: the form that each client reads, and the headers beside it."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from configschema import Loaded, parse
from proxy.forwarding.modelcalls import CONTACT
from proxy.forwarding.questions import _reader_of_forms
from proxy.http.errors import BadRequest, Problem
from proxy.http.headers import value_of
from proxy.lifecycle.reloading import Files, Reloader
from proxy.naming.resolving import _pattern
from supervisor import open_supervisor
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

CHAT = "/v1/chat/completions"
JSON, TEXT, PAGE = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
BROWSERS = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FORMS = [
    ("", JSON),
    ("*/*", JSON),
    ("application/json", JSON),
    ("application/json, text/plain, */*", JSON),  # axios
    ("application/json, text/event-stream", JSON),
    ("text/event-stream", JSON),
    ("application/*", JSON),
    ("text/plain;q=0", JSON),
    ("text/html;q=0, text/plain;q=0", JSON),
    ("text/plain;q=0, */*", JSON),
    ("text/plain;q=0.5, application/json;q=0.5", JSON),
    ("text/html;q=0.1, application/json;q=0.2", JSON),
    ("text/plain;q=0.9, */*", JSON),
    ("image/png", JSON),
    ("*/*;q=0.1", JSON),
    ("nonsense", JSON),
    (";;;,,q=", JSON),
    ("*/html", JSON),
    ("text/html" + ",x/y" * 1000, JSON),
    ("text/plain", TEXT),
    ("text/plain, */*;q=0.5", TEXT),
    ("text/*", TEXT),
    ("application/json;q=0.5, text/plain", TEXT),
    ("TEXT/PLAIN", TEXT),
    ("text/html", PAGE),
    ("text/html, application/json;q=0.9", PAGE),
    ("text/html, text/plain;q=0.9", PAGE),
    (BROWSERS, PAGE),
]


def form_of(problem: Problem, accept: str) -> tuple[str, bytes]:
    fields, body = problem.said_to(accept.encode("latin-1", "replace"))
    return value_of(fields, b"content-type").decode(), body


async def chatted(running: Daemon, body: Any, **headers: str) -> Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(running.port, "POST", CHAT, body, fields)


async def way_of(running: Daemon) -> str:
    """Return the name that the daemon gives itself in Via."""
    lines: list[str] = (await chatted(running, {"model": "a"})).json()["headers"]
    return next(line.removeprefix("via: ") for line in lines if line.startswith("via: "))


@pytest.mark.parametrize(("accept", "kind"), FORMS)
def test_an_error_is_json_unless_something_else_is_liked_better(accept: str, kind: str) -> None:
    """If another form has the same preference as JSON, the answer is JSON."""
    found, body = form_of(Problem(404, "no <b> here"), accept)
    assert found == kind
    if kind == JSON:
        assert json.loads(body)["error"]["message"] == "no <b> here"
    elif kind == TEXT:
        assert body == b"llamadoze: no <b> here"
    else:
        assert b"<h1>404</h1><p>llamadoze: no &lt;b&gt; here</p>" in body


@given(st.text(alphabet='text/plainhtmljson*;,=q.019 "\\\x00\xe9', max_size=60))
def test_any_accept_has_one_of_three_forms(accept: str) -> None:
    """Even a nonsensical Accept header gets one of the forms."""
    kind, body = form_of(Problem(400, "why"), accept)
    assert kind in (JSON, TEXT, PAGE)
    assert b"why" in body


@pytest.mark.parametrize("accept", ["text/plain", "text/html", BROWSERS])
def test_who_is_to_come_back_gets_json(accept: str) -> None:
    """Errors with Retry-After are always JSON, as from llama-swap."""
    kind, body = form_of(Problem(429, "too many", headers={"Retry-After": "1"}), accept)
    assert (kind, json.loads(body)["error"]["code"]) == (JSON, "rate_limit_exceeded")


@pytest.mark.parametrize(("accept", "kind"), [FORMS[3], FORMS[7], FORMS[-9], FORMS[-1]])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", CHAT, 404),
        ("GET", CHAT, 405),
        ("GET", "/nothing", 404),
        ("GET", "/upstream/nobody/x", 404),
        ("POST", "/upstream/a/sleep", 403),
        ("POST", "/api/models/load/nobody", 404),
        ("GET", "/v1/responses/resp_1", 404),
        ("GET", "/v1/models/nobody", 404),
    ],
)
async def test_wherever_an_error_is_made_the_client_chooses_its_form(
    method: str, path: str, status: int, accept: str, kind: str
) -> None:
    """The error may come from routing, from a view, or from a request to a model."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, method, path, {"model": "x"}, {"accept": accept})
        assert (reply.status, reply.headers["content-type"]) == (status, kind)
        assert reply.headers["cache-control"] == "no-store"
        assert len(reply.body) == int(reply.headers["content-length"])


@pytest.mark.parametrize("path", [CHAT, "/nothing", "/upstream/nobody/x"])
async def test_the_head_of_an_error_has_no_body(path: str) -> None:
    """The head does have the length of the body."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "HEAD", path)
        assert (reply.status >= 400, reply.body) == (True, b"")
        assert int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "zstd", "deflate", "gzip, br", "x"])
async def test_a_coded_body_is_refused(coding: str) -> None:
    """The model cannot be read; the answer names the accepted coding, and no model starts."""
    body = gzip.compress(b'{"model": "a"}')
    async with daemon({"a": stub()}) as running:
        for kind in ("application/json", "text/plain"):
            reply = await chatted(running, body, content_encoding=coding, content_type=kind)
            assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
            assert reply.json()["error"]["code"] == "unsupported_media_type"
        assert running.state("a") == "stopped"


@pytest.mark.parametrize("coding", ["identity", "Identity", "IDENTITY"])
async def test_a_body_that_is_said_to_be_plain_is_read(coding: str) -> None:
    """The identity coding is the same as no coding."""
    async with daemon({"a": stub()}) as running:
        assert (await chatted(running, {"model": "a"}, content_encoding=coding)).status == 200


async def test_a_coded_body_is_passed_on_where_none_is_read() -> None:
    """Below /upstream, the daemon does not read the body."""
    async with daemon({"a": stub()}) as running:
        fields = {"content-encoding": "gzip"}
        reply = await ask(running.port, "POST", "/upstream/a/x", b"\x1f\x8b..", fields)
        assert reply.status == 200
        assert "content-encoding: gzip" in reply.json()["headers"]


async def test_a_request_that_was_here_before_is_refused() -> None:
    """Otherwise the request would loop until no resources are left."""
    async with daemon({"a": stub()}) as running:
        us = await way_of(running)
        for via in (us, f"1.1 other, {us}", f"{us}, 1.0 third (a comment)"):
            reply = await chatted(running, {"model": "a"}, via=via)
            assert (reply.status, reply.json()["error"]["code"]) == (508, "loop_detected")
            reply = await ask(running.port, "GET", "/upstream/a/", b"", {"via": via})
            assert reply.status == 508


async def test_a_way_in_two_headers_is_one_way() -> None:
    """Several Via headers are checked and passed on as one list (RFC 9110, 5.3)."""
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\n" % CHAT.encode()
    body = b'{"model": "a"}'
    async with daemon({"a": stub()}) as running:
        us, other = (await way_of(running)).encode(), b"1.1 other"
        for ways, said in (((us, other), b" 508 "), ((other, us), b" 508 "), ((other, other), us)):
            lines = b"".join(b"via: %b\r\n" % way for way in ways)
            length = b"content-length: %d\r\n\r\n" % len(body)
            async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
                await stream.send_all(head + lines + length + body)
                answer = await stream.receive_some()
            assert said in answer
        assert b"via: 1.1 other, 1.1 other, %b" % us in answer


async def test_a_way_by_other_daemons_goes_on() -> None:
    """The daemon adds its own name at the end of Via, and each daemon has a different name."""
    async with daemon({"a": stub()}) as running:
        us = await way_of(running)
        reply = await chatted(running, {"model": "a"}, via="1.1 llamadoze-0, 1.1 nginx")
        assert f"via: 1.1 llamadoze-0, 1.1 nginx, {us}" in reply.json()["headers"]
    async with daemon({"a": stub()}) as running:
        assert await way_of(running) != us


async def test_a_model_whose_proxy_leads_back_here_is_a_loop() -> None:
    """Two daemons that are each other's peers are a loop too."""
    async with daemon({"a": stub()}) as last:
        peers = {"p": {"proxy": f"http://127.0.0.1:{last.port}", "models": ["a"]}}
        async with daemon({"z": stub()}, peers=peers) as first:
            us = await way_of(first)
            assert us.count("llamadoze-") == 2
            reply = await chatted(first, {"model": "a"}, via=us.partition(", ")[2])
            assert reply.status == 508


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", CHAT), ("GET", "/running"), ("GET", "/v1/models"), ("GET", "/nothing")),
        *(("GET", "/upstream/a/"), ("GET", "/upstream/a"), ("GET", "/upstream/nobody/x")),
        *(("DELETE", "/health"), ("POST", "/upstream/a/sleep"), ("OPTIONS", CHAT)),
        *(("HEAD", "/"), ("GET", "/v1/responses/resp_1")),
    ],
)
async def test_each_answer_names_its_request_twice(method: str, path: str) -> None:
    """Anthropic's client reads request-id, OpenAI's reads x-request-id."""
    async with daemon({"a": stub()}) as running:
        mine = {"x-request-id": "mine-1"}
        reply = await ask(running.port, method, path, {"model": "a"}, mine)
        assert (reply.headers["x-request-id"], reply.headers["request-id"]) == ("mine-1", "mine-1")
        reply = await ask(running.port, method, path, {"model": "a"})
        assert reply.headers["x-request-id"] == reply.headers["request-id"]
        assert len(reply.headers["request-id"]) == 16


@pytest.mark.parametrize("given_id", ["two words", "x" * 129, "two\twords", ""])
async def test_an_id_that_no_log_can_hold_is_replaced(given_id: str) -> None:
    """The daemon generates an id instead."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "GET", "/health", b"", {"x-request-id": given_id})
        assert len(reply.headers["x-request-id"]) == 16


async def test_modules_that_have_gone_since_the_start_are_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An upgrade may replace the modules: models go on, and the error asks for a restart."""
    _pattern.cache_clear()
    _reader_of_forms.cache_clear()
    for name in ("werkzeug.datastructures", "werkzeug.http", "re2", "proxy.forwarding.forms"):
        monkeypatch.setitem(sys.modules, name, None)
    async with daemon({"a": stub()}) as running:
        refused = await ask(running.port, "POST", CHAT, b"{}", {"accept": BROWSERS})
        assert (refused.status, refused.headers["content-type"]) == (404, JSON)
        page = await ask(running.port, "GET", "/upstream/a/x.css")
        form = {"content-type": "multipart/form-data; boundary=b"}
        upload = await ask(running.port, "POST", "/v1/audio/transcriptions", b"x", form)
        for reply in (page, upload):
            assert reply.status == 503
            assert b"until you restart llamadoze" in reply.body
        assert (await ask(running.port, "POST", CHAT, b'{"model": "a"}')).status == 200


async def test_a_reload_that_lacks_a_module_changes_nothing() -> None:
    """The daemon and its models go on, and the error asks for a restart."""

    def read(*_: object) -> Loaded:
        raise ModuleNotFoundError("No module named 're2'")

    async with open_supervisor(parse("models: {}").config, CONTACT) as supervisor:
        reloader = Reloader(Files(list, read, lambda _: None), supervisor)
        await reloader.try_reload()
        with pytest.raises(BadRequest, match="until you restart llamadoze") as caught:
            await reloader.reload()
    assert caught.value.status == 422
