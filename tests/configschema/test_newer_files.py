"""Keys of newer llama-swap files: accepted, warned about, or refused with a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configschema import ConfigError, Loaded, parse
from configschema.keys.clients import CORS_METHODS, EXPOSED_HEADERS


def of_model(keys: str, everyones: str = "") -> Loaded:
    return parse(f"{everyones}models: {{m: {{cmd: 'sh ${{PORT}}', {keys}}}}}\n", "f")


def warnings(loaded: Loaded) -> list[str]:
    return [f"{one.path}: {one.message}" for one in loaded.warnings]


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return [f"{one.path}: {one.message}" for one in caught.value.problems]


@pytest.mark.parametrize("words", ["video", "text, image, audio, video", "", "image, image"])
def test_modalities_of_llama_swap_are_taken(words: str) -> None:
    """Video is one of the known modalities."""
    loaded = of_model(f"capabilities: {{in: [{words}], out: [{words}]}}")
    assert loaded.warnings == ()
    assert list(loaded.config.models["m"].capabilities.input) == words.split(", ") * bool(words)


@pytest.mark.parametrize("word", ["smell", "Video", "TEXT", "vector", "7", "''", "true"])
@pytest.mark.parametrize("side", ["in", "out"])
def test_unknown_modalities_are_warned_of(side: str, word: str) -> None:
    """Modalities are only shown, and llama-swap's next version may have more of them."""
    loaded = of_model(f"capabilities: {{{side}: [text, {word}]}}")
    shown = word.strip("'")
    message = f"'{shown}' is none of text, audio, image, video, so it is shown, but has no effect"
    assert warnings(loaded) == [f"models.m.capabilities.{side}.1: {message}"]
    known = loaded.config.models["m"].capabilities
    assert shown in (known.input if side == "in" else known.output)


def test_modalities_of_another_shape_are_refused() -> None:
    """A single word is not a list."""
    problems = refused("models: {m: {cmd: 'sh ${PORT}', capabilities: {in: video}}}")
    assert problems == [
        "models.m.capabilities.in: expected a list, found 'video'; put it in [ ]",
    ]


@pytest.mark.parametrize(
    ("params", "meant"),
    [
        ("max_tokens?: 4096", {"max_tokens?": 4096}),
        ("'max_tokens?': 4096", {"max_tokens?": 4096}),
        ("temperature?: 1.50, top_k: 5", {"temperature?": 1.5, "top_k": 5}),
        ("chat.kwargs?: {a: b}", {"chat.kwargs?": {"a": "b"}}),
        ("stop?: [x, y]", {"stop?": ["x", "y"]}),
    ],
)
def test_soft_defaults_are_taken(params: str, meant: dict[str, Any]) -> None:
    """A model may have them for all its names or for one name, and a peer may have them, too."""
    loaded = of_model(f"filters: {{setParams: {{{params}}}, setParamsByID: {{x: {{{params}}}}}}}")
    filters = loaded.config.models["m"].filters
    assert loaded.warnings == ()
    assert filters.set_params == meant
    assert filters.set_params_by_id == {"x": meant}
    peer = f"{{proxy: 'http://x', models: [a], filters: {{setParams: {{{params}}}}}}}"
    assert parse(f"peers: {{p: {peer}}}").config.peers["p"].filters.set_params == meant


@pytest.mark.parametrize(("given", "limit"), [("0", 0), ("8", 8), ("-1", -1), ("2.0", 2)])
def test_the_global_concurrency_limit_is_taken(given: str, limit: int) -> None:
    """Without the key there is no limit."""
    loaded = parse(f"globalConcurrencyLimit: {given}")
    assert loaded.config.global_concurrency_limit == limit
    assert loaded.warnings == ()
    assert parse("").config.global_concurrency_limit == 0


@pytest.mark.parametrize("given", ["many", "'3'", "[3]", "true", ".inf"])
def test_a_global_concurrency_limit_is_a_number(given: str) -> None:
    """llamadoze refuses any value that is not a whole number."""
    (problem,) = refused(f"globalConcurrencyLimit: {given}")
    assert problem.startswith("globalConcurrencyLimit: expected a whole number, found ")


PROFILES = "profiles: {chat: {pins: {x: m}}}\n"


def test_a_profile_of_the_start_is_one_of_the_files() -> None:
    """Without the key no profile is in use."""
    hook = "hooks: {on_startup: {profile: chat}}\n"
    assert of_model("", hook + PROFILES).config.hooks.on_startup.profile == "chat"
    assert of_model("", PROFILES).config.hooks.on_startup.profile == ""


@pytest.mark.parametrize(
    ("name", "rest"),
    [("chta", "'chta'; did you mean 'chat'?"), ("nope", "'nope'"), ("m", "'m'"), ("x", "'x'")],
)
def test_an_unknown_profile_of_the_start_is_refused(name: str, rest: str) -> None:
    """Names of models and of pins are no profiles."""
    hook = f"hooks: {{on_startup: {{profile: {name}}}}}\n"
    problems = refused(f"{hook}{PROFILES}models: {{m: {{cmd: 'sh ${{PORT}}'}}}}")
    assert problems == [f"hooks.on_startup.profile: there is no profile {rest}"]


def test_a_security_block_is_taken() -> None:
    """Missing keys of the block have llama-swap's defaults."""
    text = "security: {hosts: [llm.home.example, '[fd00::1]'], cors: {allowedOrigins: [%s]}}"
    loaded = parse(text % "'https://a.example', 'http://[::1]:8080', 'chrome-extension://abc'")
    cors = loaded.config.security.cors
    assert loaded.warnings == ()
    assert loaded.config.security.hosts == ("llm.home.example", "[fd00::1]")
    assert cors is not None
    assert cors.allowed_origins is not None
    assert cors.allowed_origins[1:] == ("http://[::1]:8080", "chrome-extension://abc")
    assert (cors.allowed_methods, cors.exposed_headers) == (CORS_METHODS, EXPOSED_HEADERS)
    assert (cors.allow_credentials, cors.allowed_headers, cors.max_age) == (False, (), 0)
    assert parse("").config.security.cors is None


NO_HOST = "expected a name such as llm.home.example, without port, found"
NO_ORIGIN = "expected * or scheme://host[:port], without a path, found"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("hosts: ['a:80']", f"hosts.0: {NO_HOST} 'a:80'"),
        ("hosts: [a, 'http://b']", f"hosts.1: {NO_HOST} 'http://b'"),
        ("hosts: ['*']", f"hosts.0: {NO_HOST} '*'"),
        ("hosts: ['']", f"hosts.0: {NO_HOST} ''"),
        ("cors: {allowedOrigins: ['https://a/']}", f"cors.allowedOrigins.0: {NO_ORIGIN}"),
        ("cors: {allowedOrigins: ['https://*.a']}", f"cors.allowedOrigins.0: {NO_ORIGIN}"),
        ("cors: {allowedOrigins: ['*', a]}", f"cors.allowedOrigins.1: {NO_ORIGIN} 'a'"),
        ("cors: {allowedOrigins: []}", "cors.allowedOrigins: expected at least one origin, or *"),
        (
            "cors: {allowCredentials: true}",
            "cors.allowCredentials: browsers refuse credentials with *: list the origins in "
            "allowedOrigins",
        ),
        ("cors: {allowedMethods: ['G T']}", "cors.allowedMethods.0: expected one word, found"),
        ("cors: {allowedHeaders: [a, 'b c']}", "cors.allowedHeaders.1: expected one word, found"),
        ("cors: {exposedHeaders: ['x:y']}", "cors.exposedHeaders.0: expected one word, found"),
        ("cors: {maxAge: -1}", "cors.maxAge: expected whole seconds, at least 0, found -1"),
        ("cors: [a]", "cors: expected settings such as allowedOrigins, "),
    ],
)
def test_what_is_refused_in_a_security_block(keys: str, problem: str) -> None:
    """A mistake in this block would let in the wrong clients, or none."""
    (found,) = refused(f"security: {{{keys}}}")
    assert found.startswith(f"security.{problem}")


def test_a_slip_in_a_security_block_is_warned_of() -> None:
    """Unknown keys cause a warning here as in every other section."""
    assert warnings(parse("security: {host: [a]}")) == [
        "security.host: unknown key, ignored; did you mean 'hosts'?"
    ]


@pytest.mark.parametrize("value", ["{hostname: x, authKey: k}", "[a]", "on", "x", "5"])
def test_a_tailcat_section_is_warned_of(value: str) -> None:
    """llamadoze serves the file's models without Tailcat, whatever the section contains."""
    loaded = of_model("", f"tailcat: {value}\n")
    assert warnings(loaded) == [
        "tailcat: not in effect: llamadoze has no Tailcat; put its socks or Tailscale in front"
    ]
    assert list(loaded.config.models) == ["m"]


@pytest.mark.parametrize("address", ["tailcat://host", "tailcat://host:8080/v1", "tailcat:host"])
def test_a_peer_over_tailcat_is_refused_with_the_way_out(address: str) -> None:
    """llamadoze could never reach such a peer."""
    (problem,) = refused(f"peers: {{p: {{proxy: '{address}', models: [a], tailcatKey: k}}}}")
    way = "run `tailcat socks` or Tailscale in between, and give its http:// address"
    assert problem == f"peers.p.proxy: llamadoze does not support Tailcat: {way}"


def test_a_store_that_cannot_be_written_is_warned_of(tmp_path: Path) -> None:
    """The store's folder must exist; the check itself creates no file."""
    there, nowhere = tmp_path / "activity.db", tmp_path / "nowhere" / "activity.db"
    assert warnings(parse(f"store: {{path: {there}}}")) == []
    (found,) = warnings(parse(f"store: {{path: {nowhere}}}"))
    assert found.startswith("store.path: '")
    assert found.endswith(" is not writable")
    assert not list(tmp_path.iterdir())
