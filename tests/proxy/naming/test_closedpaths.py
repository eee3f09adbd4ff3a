"""Clients cannot use paths that control a model server, however the paths are spelled."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from configschema import Call, parse
from proxy.http.errors import BadRequest
from proxy.naming.closedpaths import CONTROL, Controls, plain_path
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

OWN: dict[str, Any] = {
    "sleepMode": "enable",
    "sleepEndpoints": [{"endpoint": "/admin/Nap?deep=1"}, {"endpoint": "/"}],
    "wakeEndpoints": [{"endpoint": "/admin/rise", "method": "PUT"}],
}
PLAIN = "models: {m: {cmd: 'x --port ${PORT}'}}"


def controls(text: str = PLAIN) -> Controls:
    return Controls.of(parse(text).config)


def is_closed(path: str, rules: Controls | None = None, model: str = "m") -> bool:
    try:
        (rules or controls()).refuse(model, path.encode())
    except BadRequest:
        return True
    return False


async def posted(running: Daemon, path: str) -> Reply:
    return await ask(running.port, "POST", path, b"{}")


async def seen_by(running: Daemon, model: str) -> Any:
    """Return the statistics of a model's server, requested without the daemon."""
    port = int(running.supervisor.servers[model].model.proxy.rpartition(":")[2])
    return (await ask(port, "GET", "/stats")).json()


@pytest.mark.parametrize("path", sorted(CONTROL))
def test_each_route_of_control_is_closed(path: str) -> None:
    """The list covers every server with a preset, and applies to every model."""
    assert is_closed(path)
    assert is_closed(path, model="of a peer")
    assert is_closed(path.upper())
    assert is_closed(f"/prefix{path}/")


@pytest.mark.parametrize(
    "path",
    [
        *("/sleep", "//sleep", "///sleep//", "/sleep/", "/SLEEP", "/./sleep", "/x/../sleep"),
        *("/%73leep", "/%2573leep", "/x%2f..%2fsleep", "/x/%2e%2e/sleep", "%2Fsleep", "sleep"),
        *("/sleep%0a", "/sleep%20", "/%09sleep", "/sleep%00", "/sl%0deep", "/sleep%7f"),
        *("/v1/load_lora_adapter", "/V1//Load_Lora_Adapter", "/v1/model/unload"),
        *("/v1/x/../model/unload", "/v1%2Fmodel%2Funload", "/v1/%6dodel/unload"),
        *("/slots/0", "/slots/17", "//slots//0", "/slots/%30", "/SLOTS/0/", "/x/slots/0"),
        *("/api/pull", "/api//delete", "/api/./create"),
    ],
)
def test_the_spelling_of_a_path_does_not_matter(path: str) -> None:
    """Routers differ in strictness, so the daemon assumes the most forgiving router."""
    assert is_closed(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/v1/chat/completions", "/sleeper", "/is_sleeping", "/sleep/x", "/wake_up.js"),
        *("/health", "/metrics", "/slots", "/props", "/v1/models", "/v1/model", "/models"),
        *("/api/chat", "/api/generate", "/api/tags", "/api/show", "/tokenize", "/pausedx"),
        *("/v1/lora", "/slots/x", "/%ff%fe", "/%", "/unloading"),
    ],
)
def test_what_only_asks_is_open(path: str) -> None:
    """Paths that only begin like a closed path or contain one are open too."""
    assert not is_closed(path)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        (b"", "/"),
        (b"/", "/"),
        (b"//a//b/", "/a/b"),
        (b"a/../../b", "/b"),
        (b"/A%2fB", "/a/b"),
        (b"/%25%34%31", "/a"),
        (b"/a\xff", "/a\ufffd"),
    ],
)
def test_a_path_is_read_as_the_most_forgiving_router_would(path: bytes, plain: str) -> None:
    """The path is decoded twice, without invisible characters, and in lower case."""
    assert plain_path(path) == plain


def test_a_models_own_recipe_closes_its_paths_and_no_others() -> None:
    """The paths are closed for this model only; the root stays open, because everyone uses it."""
    text = """
      models:
        m: {cmd: x, proxy: 'http://h:1/base', sleepMode: enable,
            sleepEndpoints: [{endpoint: /base/nap}], wakeEndpoints: [{endpoint: /base/Rise}]}
        n: {cmd: x, proxy: 'http://h:2'}
    """
    rules = controls(text)
    assert is_closed("/nap", rules)
    assert is_closed("/NAP%20/", rules)
    assert is_closed("/rise", rules)
    assert not is_closed("/nap", rules, model="n")
    assert is_closed("/sleep", rules, model="n")
    assert not is_closed("/", rules)


def test_what_is_only_asked_stays_open() -> None:
    """A GET step in a recipe only reads."""
    text = """
      models:
        m: {cmd: x, proxy: 'http://h:1', sleep: vllm,
            verify: {asleep: [{endpoint: /mood}]}}
    """
    rules = controls(text)
    assert not is_closed("/mood", rules)
    assert not is_closed("/is_sleeping", rules)
    assert is_closed("/wake_up", rules)


@pytest.mark.parametrize("preset", ["ollama", "tabbyapi", "sglang", "vllm", "llama.cpp-router"])
def test_every_presets_own_steps_are_closed(preset: str) -> None:
    """Ollama is the exception: its route for sleep is also its route for generating text."""
    text = f"models: {{m: {{cmd: x, proxy: 'http://h:1', sleep: {preset}}}}}"
    config = parse(text).config
    steps = [*config.models["m"].recipe.sleep, *config.models["m"].recipe.wake]
    calls = [step for step in steps if isinstance(step, Call) and step.method != "GET"]
    paths = {urlsplit(step.url).path for step in calls}
    closed = {path for path in paths if is_closed(path, Controls.of(config))}
    assert paths
    assert closed == (set() if preset == "ollama" else paths)


def test_the_setting_opens_all_of_them() -> None:
    """upstream.allowControl opens all closed paths."""
    rules = controls(f"{PLAIN}\nupstream: {{allowControl: true}}")
    assert not any(is_closed(path, rules) for path in CONTROL)
    assert not is_closed("/slots/0", rules)


def test_a_long_path_is_not_repeated_whole() -> None:
    """The refusal is also written to a log, so it shortens the path."""
    with pytest.raises(BadRequest) as caught:
        controls().refuse("m", b"/" + b"x" * 10_000 + b"/sleep")
    assert len(str(caught.value)) < 400
    assert "upstream.allowControl" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        *("/sleep?level=2", "/slots/0?action=erase", "/slots//1?action=erase", "//wake_up"),
        *("/v1/load_lora_adapter", "/v1/model/unload", "/admin/nap", "/admin%2Fnap", "/admin/rise"),
    ],
)
@pytest.mark.parametrize("below", ["/upstream/comfyui_auto", "/upstream/ui", "/comfyui"])
async def test_the_server_is_not_even_asked(below: str, path: str) -> None:
    """A stopped model does not start for such a path, and a running model does not receive it."""
    async with daemon({"comfyui_auto": stub(aliases=["ui"], **OWN)}) as running:
        reply = await posted(running, f"{below}{path}")
        assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")
        assert running.state("comfyui_auto") == "stopped"
        assert (await posted(running, "/upstream/ui/")).status == 200
        before = await seen_by(running, "comfyui_auto")
        assert (await posted(running, f"{below}{path}")).status == 403
        assert await seen_by(running, "comfyui_auto") == before


@pytest.mark.parametrize("path", ["/slots/0?action=erase", "/v1/model/unload", "/admin/nap"])
async def test_they_are_passed_on_where_that_is_allowed(path: str) -> None:
    """The path is passed on unchanged."""
    models = {"a": stub(**OWN)}
    async with daemon(models, upstream={"allowControl": True}) as running:
        reply = await posted(running, f"/upstream/a{path}")
        assert (reply.status, reply.json()["target"]) == (200, path)


@pytest.mark.parametrize(
    "path", ["//upstream/a/sleep", "/%75pstream/a/sleep", "/upstream//a/sleep"]
)
async def test_no_spelling_of_the_way_there_leads_around(path: str) -> None:
    """Other spellings of /upstream are not found."""
    async with daemon({"a": stub()}) as running:
        assert (await posted(running, path)).status == 404
        assert running.state("a") == "stopped"


async def test_the_daemon_itself_still_controls_the_server() -> None:
    """The daemon's own steps do not go through /upstream."""
    async with daemon({"a": stub(sleeps=True)}) as running:
        await posted(running, "/upstream/a/")
        assert (await posted(running, "/upstream/a/sleep")).status == 403
        assert (await posted(running, "/api/models/sleep/a")).status == 200
        assert running.state("a") == "asleep"
        assert (await seen_by(running, "a"))["slept"] == 1


async def test_a_base_path_and_another_name_lead_around_nothing() -> None:
    """The check uses the path that the server gets, and the model behind a profile's pin."""
    base = stub(proxy="http://127.0.0.1:${PORT}/v1", checkEndpoint="none")
    own = stub(
        sleepMode="enable",
        sleepEndpoints=[{"endpoint": "/nap"}],
        wakeEndpoints=[{"endpoint": "/up"}],
    )
    profiles = {"p": {"pins": {"nick": "own"}}}
    async with daemon({"base": base, "own": own}, profiles=profiles) as running:
        assert (await posted(running, "/upstream/base/model/load")).status == 403
        await ask(running.port, "PUT", "/api/profiles/active", {"name": "p"})
        assert (await posted(running, "/upstream/nick/nap")).status == 403


@pytest.mark.parametrize(
    "keys",
    [
        "cmdSleep: curl -X POST http://127.0.0.1:1/nap, cmdWake: curl -X POST http://127.0.0.1:1/up",
        "sleepMode: enable, sleepEndpoints: [{endpoint: /nap, method: GET}], "
        "wakeEndpoints: [{endpoint: /up}]",
    ],
)
def test_every_way_to_sleep_closes_its_paths(keys: str) -> None:
    """The path may be in a command's address or in a step by GET."""
    rules = controls(f"models: {{m: {{cmd: x, proxy: 'http://127.0.0.1:1', {keys}}}}}")
    assert is_closed("/nap", rules)
    assert is_closed("/up", rules)
    assert not is_closed("/x", rules)
