"""Browsers: the names of this machine, pages of other sites, and what these pages may read."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from configschema import ConfigError, parse
from proxy.http.errors import BadRequest
from proxy.naming.origins import Guard, Visitor
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

OTHER = "https://other.example"
LOCAL = "127.0.0.1"
CHAT = "/v1/chat/completions"
EXPOSED = "x-request-id, request-id, retry-after"
CHANGES = [
    *(("GET", "/unload"), ("HEAD", "/unload"), ("GET", "/unload/"), ("GET", "//unload")),
    *(("POST", "/api/models/unload"), ("POST", "/api/models/load/a"), ("POST", "/api/reload")),
    *(("POST", "/api/pause"), ("POST", "/api/resume"), ("POST", "/api/inflight/1/cancel")),
    *(("POST", "/api/leases"), ("DELETE", "/api/leases/1")),
    *(("PUT", "/api/profiles/active"), ("POST", "/upstream/a/x"), ("DELETE", "/upstream/a/x")),
]


def guard(text: str = "") -> Guard:
    return Guard.of(parse(text).config)


def cors(**keys: object) -> dict[str, Any]:
    return {"security": {"cors": keys}}


async def asked(running: Daemon, method: str, path: str, **headers: str) -> Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(running.port, method, path, b"", fields)


async def chat_of(running: Daemon, origin: str) -> Reply:
    return await ask(running.port, "POST", CHAT, {"model": "a"}, {"origin": origin})


async def status_of_websocket(running: Daemon, path: str, origin: str) -> int:
    """Request a websocket as a page does; return the status of the answer."""
    stream = await trio.open_tcp_stream(LOCAL, running.port)
    fields = ["host: localhost", "connection: upgrade", "upgrade: websocket", f"origin: {origin}"]
    async with stream:
        head = "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""])
        await stream.send_all(head.encode())
        return int((await stream.receive_some()).split()[1])


async def header_lines(running: Daemon, request: str, name: str) -> list[str]:
    """Return the values of all headers with this name."""
    stream = await trio.open_tcp_stream(LOCAL, running.port)
    async with stream:
        await stream.send_all(request.encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += await stream.receive_some()
    lines = [line.partition(": ") for line in got.partition(b"\r\n\r\n")[0].decode().split("\r\n")]
    return [value for key, _, value in lines if key.lower() == name]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:80", "localhost.", "a.localhost:1", "127.0.0.1:8080"),
        *("127.9.9.9", "192.168.1.3:80", "[::1]", "[::1]:8080", "[fe80::1]:1", ""),
        *("host.docker.internal:1", "host.containers.internal", "llm.home", "LLM.Home:80"),
    ],
)
def test_names_of_this_machine_are_served(host: str) -> None:
    """Others cannot point an IP address to this machine; the operator lists further names."""
    rules = guard("security: {hosts: [Llm.Home]}")
    rules.admit(Visitor(host=host), LOCAL, changes=True, shared=False)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("notlocalhost", "127.1", "2130706433", "0x7f.1", "llm.home.evil.example", "my.llm.home"),
    ],
)
@pytest.mark.parametrize("local", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_other_names_are_refused_on_this_machines_own_port(host: str, local: str) -> None:
    """Another site's name may resolve to this machine, and its page would then count as ours."""
    rules = guard("security: {hosts: [llm.home]}")
    with pytest.raises(BadRequest, match=r"security\.hosts") as caught:
        rules.admit(Visitor(host=host), local, changes=False, shared=False)
    assert (caught.value.status, caught.value.code) == (403, "host_not_allowed")


@pytest.mark.parametrize(("text", "local"), [("apiKeys: [k]", LOCAL), ("", "192.168.1.3")])
def test_any_name_is_served_with_keys_or_to_others(text: str, local: str) -> None:
    """A page does not know the key, and a server in a network has names there."""
    guard(text).admit(Visitor(host="llm.example"), local, changes=True, shared=False)


async def test_a_request_to_another_name_is_answered_with_403() -> None:
    """If the target is a whole URL, the name in the URL counts."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "GET", "/health", host="evil.example")
        assert (reply.status, reply.json()["error"]["code"]) == (403, "host_not_allowed")
        whole = "http://evil.example/health"
        assert (await asked(running, "GET", whole, host="localhost")).status == 403
        whole = "http://localhost/health"
        assert (await asked(running, "GET", whole, host="evil.example")).status == 200


@pytest.mark.parametrize(
    "host", ["a b", "localhost/", "a@b", "localhost:x", "[::1", "a,b c", '"a"', "<a>", "a\\b"]
)
async def test_a_host_with_letters_that_none_has_is_no_request(host: str) -> None:
    """Such a Host header makes the request invalid."""
    async with daemon({"a": stub()}) as running:
        assert (await asked(running, "GET", "/health", host=host)).status == 400


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_page_of_another_site_changes_nothing(method: str, path: str) -> None:
    """The browser sends Origin, or only Sec-Fetch-Site, as it does for an image."""
    async with daemon({"a": stub()}) as running:
        for told in ({"origin": OTHER}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            reply = await ask(running.port, method, path, b"", told)
            assert reply.status == 403
            assert method == "HEAD" or reply.json()["error"]["code"] == "origin_not_allowed"
        assert running.state("a") == "stopped"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8080"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://[::1]:1"},
        {"origin": "http://ui.localhost"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
        {"origin": "https://box.lan:444", "host": "box.lan:8080"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
    ids=str,
)
async def test_programs_and_this_machines_pages_may_change_it(headers: dict[str, str]) -> None:
    """A program that is not a browser sends neither header."""
    async with daemon({"a": stub()}, security={"hosts": ["box.lan"]}) as running:
        assert (await ask(running.port, "GET", "/unload", b"", headers)).body == b"OK"
        assert (await ask(running.port, "POST", "/upstream/a/x", b"", headers)).status == 200


@pytest.mark.parametrize("path", ["/upstream/a/ws", "/v1/realtime?model=a"])
async def test_a_page_of_another_site_gets_no_websocket(path: str) -> None:
    """CORS does not apply to websockets, so the page could read all that is sent."""
    async with daemon({"a": stub()}) as running:
        assert await status_of_websocket(running, path, OTHER) == 403
        assert running.state("a") == "stopped"
        assert await status_of_websocket(running, path, "http://localhost:3000") == 101
    async with daemon({"a": stub()}, **cors(allowedOrigins=[OTHER])) as running:
        assert await status_of_websocket(running, path, OTHER) == 101
        assert await status_of_websocket(running, path, "https://third.example") == 403


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/a", "/v1/v1/models/"])
async def test_any_page_may_read_the_list_of_models(path: str) -> None:
    """Pages may also read the other model APIs and the request ids."""
    async with daemon({"a": stub()}) as running:
        reply = await asked(running, "GET", path, origin=OTHER)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-expose-headers"] == EXPOSED
        assert reply.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in (await asked(running, "GET", path)).headers


async def test_any_page_may_ask_a_model_and_read_why_not() -> None:
    """A page can read refusals as well as answers."""
    async with daemon({"a": stub()}) as running:
        assert (await chat_of(running, OTHER)).headers["access-control-allow-origin"] == "*"
        reply = await ask(running.port, "POST", CHAT, {"model": "x"}, {"origin": OTHER})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (404, "*")


@pytest.mark.parametrize("path", ["/running", "/logs", "/metrics", "/api/version", "/upstream/a/x"])
async def test_what_is_not_a_model_api_is_read_by_this_machines_pages_alone(path: str) -> None:
    """Other pages get no header that allows them to read the answer."""
    async with daemon({"a": stub()}) as running:
        await asked(running, "GET", "/upstream/a/")
        own = "http://localhost:3000"
        reply = await asked(running, "GET", path, origin=own)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, own)
        reply = await asked(running, "GET", path, origin=OTHER)
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["vary"] == "Origin"


async def test_listed_origins_and_no_others_may_do_all() -> None:
    """The answer names the origin, so that caches keep answers apart."""
    keys = cors(allowedOrigins=[OTHER], allowCredentials=True, exposedHeaders=["x-a"])
    async with daemon({"a": stub()}, **keys) as running:
        for path in ("/running", "/v1/models", "/upstream/a/"):
            reply = await asked(running, "GET", path, origin=OTHER)
            assert reply.headers["access-control-allow-origin"] == OTHER
            assert reply.headers["access-control-allow-credentials"] == "true"
            assert reply.headers["access-control-expose-headers"] == "x-a"
            assert reply.headers["vary"] == "Origin"
        assert (await asked(running, "GET", "/unload", origin=OTHER)).status == 200
        refused = await chat_of(running, "https://third.example")
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers


async def test_a_star_opens_all_for_reading_and_the_model_apis_for_use() -> None:
    """A star is meant for reading; changes to the daemon need a listed origin."""
    async with daemon({"a": stub()}, **cors(allowedOrigins=["*"])) as running:
        reply = await asked(running, "GET", "/running", origin=OTHER)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "*")
        assert (await chat_of(running, OTHER)).status == 200
        assert (await asked(running, "GET", "/unload", origin=OTHER)).status == 403


async def test_a_preflight_is_answered_with_what_is_allowed() -> None:
    """A page that is not listed gets no permissions."""
    keys = cors(allowedOrigins=[OTHER], allowedMethods=["GET", "POST"], maxAge=60)
    wish = {"access_control_request_headers": "X-One, bad name, x-two"}
    async with daemon({"a": stub()}, apiKeys=["k"], **keys) as running:
        reply = await asked(running, "OPTIONS", CHAT, origin=OTHER, **wish)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == OTHER
        assert reply.headers["access-control-allow-methods"] == "GET, POST"
        assert reply.headers["access-control-allow-headers"] == "X-One, x-two"
        assert reply.headers["access-control-max-age"] == "60"
        third = await asked(running, "OPTIONS", CHAT, origin="https://third.example", **wish)
        assert not [name for name in third.headers if name.startswith("access-control")]


async def test_a_model_servers_own_rules_do_not_count() -> None:
    """Browsers reject two CORS headers, so the answer has only the daemon's header."""
    rules = "access-control-allow-origin: x\r\nAccess-Control-Max-Age: 1\r\n"
    canned = f"HTTP/1.1 200 OK\r\n{rules}content-length: 2\r\n\r\nok"

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(canned.encode())

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=LOCAL)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        place = f"http://{LOCAL}:{listeners[0].socket.getsockname()[1]}"
        peers = {"p": {"proxy": place, "models": ["m"]}}
        async with daemon({"a": stub()}, peers=peers) as running:
            request = f"GET /upstream/m/ HTTP/1.1\r\nhost: localhost\r\norigin: {OTHER}\r\n\r\n"
            assert await header_lines(running, request, "access-control-allow-origin") == []
            request = request.replace("/upstream/m/", "/props?model=m")
            assert await header_lines(running, request, "access-control-allow-origin") == ["*"]
            assert await header_lines(running, request, "access-control-max-age") == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("hosts: ['a:80']", "without port"),
        ("hosts: ['http://a']", "without port"),
        ("cors: {allowedOrigins: []}", "at least one origin"),
        ("cors: {allowedOrigins: [x.example]}", "expected * or scheme"),
        ("cors: {allowedOrigins: ['https://x.example/']}", "without a path"),
        ("cors: {allowedOrigins: ['null']}", "expected * or scheme"),
        ("cors: {allowCredentials: true}", "list the origins"),
        ("cors: {allowedMethods: ['GET POST']}", "expected one word"),
        ("cors: {allowedHeaders: ['a: b']}", "expected one word"),
        ("cors: {exposedHeaders: ['']}", "expected one word"),
        ("cors: {maxAge: -1}", "at least 0"),
    ],
)
def test_rules_that_no_browser_could_follow_are_faults(keys: str, fault: str) -> None:
    """The daemon reports them before it serves anything."""
    with pytest.raises(ConfigError) as caught:
        parse(f"security: {{{keys}}}")
    assert [fault in str(problem) for problem in caught.value.problems] == [True]


@pytest.mark.parametrize(
    "keys",
    [
        "hosts: [llm.home.example, '[::1]']",
        "cors: {}",
        "cors: {allowedOrigins: ['http://[::1]:80', 'app://obsidian.md', '*']}",
        "cors: {allowedHeaders: ['*']}",
        "cors: {allowedOrigins: ['https://x.example'], allowCredentials: true}",
    ],
)
def test_rules_that_make_sense_are_taken(keys: str) -> None:
    """There are no warnings."""
    assert parse(f"security: {{{keys}}}").warnings == ()


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/responses", "/v1/audio/transcriptions"])
async def test_any_page_may_ask_before_it_uses_the_model_apis(path: str) -> None:
    """A browser sends such a preflight before it sends JSON."""
    method = "GET" if path == "/v1/models" else "POST"
    async with daemon({"a": stub()}) as running:
        fields = {"origin": OTHER, "access_control_request_method": method}
        reply = await asked(running, "OPTIONS", path, **fields)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.parametrize("path", ["/models/load", "/models/unload", "/v1/models/", "/models"])
async def test_what_changes_models_is_no_model_api(path: str) -> None:
    """The path begins like the list's, and an HTML form could post there without a preflight."""
    async with daemon({"a": stub()}) as running:
        fields = {"origin": OTHER, "content-type": "text/plain"}
        reply = await ask(running.port, "POST", path, {"model": "a"}, fields)
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
        preflight = {"origin": OTHER, "access_control_request_method": "POST"}
        allowed = await asked(running, "OPTIONS", path, **preflight)
        assert "access-control-allow-origin" not in allowed.headers


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        (
            {
                "sec-fetch-site": "cross-site",
                "sec-fetch-mode": "navigate",
                "sec-fetch-dest": "document",
            },
            200,
        ),
        ({"referer": "http://other.example/page"}, 403),
        ({"referer": "http://localhost:3000/page"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 200),
    ],
)
async def test_an_image_of_another_site_starts_no_model(
    fields: dict[str, str], status: int
) -> None:
    """A link that a person follows may start a model."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "GET", "/upstream/a/x", b"", fields)
        assert reply.status == status
        assert running.state("a") == ("ready" if status == 200 else "stopped")


def test_pages_of_our_own_names_are_ours() -> None:
    """The Host that a reverse proxy sends and the spelling of the name do not matter."""
    rules = guard("security: {hosts: [LLM.Home.example.]}")
    ours = Visitor(origin="https://llm.home.example", host="127.0.0.1:8080")
    rules.admit(ours, LOCAL, changes=True, shared=False)
    rules.admit(Visitor(host="llm.home.example"), LOCAL, changes=True, shared=False)


@pytest.mark.parametrize("keys", ["{}", "{exposedHeaders: [x-a]}", "{maxAge: 60}"])
async def test_without_origins_only_the_model_apis_are_everybodys(keys: str) -> None:
    """This equals no `cors` section at all; an explicit star opens all answers for reading."""
    page = Visitor(origin=OTHER)
    rules = guard(f"security: {{cors: {keys}}}")
    assert (b"access-control-allow-origin", b"*") in rules.headers_for(page, shared=True)
    assert rules.headers_for(page, shared=False) == [(b"vary", b"Origin")]
    written = guard("security: {cors: {allowedOrigins: ['*']}}")
    assert (b"access-control-allow-origin", b"*") in written.headers_for(page, shared=False)
