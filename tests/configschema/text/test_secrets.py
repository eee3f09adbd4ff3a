"""llamadoze never shows keys or values of the environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configschema import ConfigError, parse

SECRET = "sk-very-secret-value"  # noqa: S105 -- nobody's


def said(text: str, environ: dict[str, str] | None = None) -> str:
    """Return all problems and warnings of a text."""
    try:
        loaded = parse(text, "f", environ or {})
    except ConfigError as error:
        return "\n".join(map(str, (*error.problems, *error.warnings)))
    return "\n".join(map(str, loaded.warnings))


@pytest.mark.parametrize(
    "text",
    [
        f"apiKeys: ['{SECRET} x']",
        f"apiKeys: {SECRET}",
        f"apiKeys: {{a: {SECRET}}}",
        f"apiKeys: [[{SECRET}]]",
        f"apiKeys: [{SECRET}]\nlogLevel: 'loud {SECRET}'",
        f"apiKeys: [{SECRET}]\nhooks: {{on_startup: {{preload: ['{SECRET}']}}}}",
        f"apiKeys: [{SECRET}, {SECRET}]\nlogLevel: '{SECRET}'",
        f"apiKeys: [{SECRET}]\nmodels: {{m: {{cmd: x, proxy: 'http:// {SECRET}'}}}}",
        f"apiKeys: [{SECRET}]\nmodels: {{m: {{cmd: 'x --key {SECRET} ${{PORT}}'}}}}",
        f"peers: {{p: {{proxy: 'http://x:1', models: [m], apiKey: {SECRET}, timeouts: {SECRET}}}}}",
        f"peers: {{p: {{proxy: 'http://x:1', models: [m], apiKey: [{SECRET}]}}}}",
        f"models: {{m: {{cmd: 'x ${{PORT}}', env: [KEY={SECRET}]}}}}",
    ],
    ids=range(12),
)
def test_keys_are_never_shown(text: str) -> None:
    """The key stays hidden wherever it stands and whatever is wrong with it."""
    assert SECRET not in said(text)


WRITTEN = """
macros: {hub: "hf_abcdefghijklmnopqrstuvwxyz012345", secretmacro: of-a-macro}
apiKeys: [{name: ci, key: "${env.CI_KEY}"}]
models:
  m:
    cmd: >
      serve --port ${PORT} --hf-token
      of-the-next-line --api-key in-a-folded-text
      --limit-tokens 4096 --body '{\\"api_key\\": \\"in-json-text\\"}'
    env: [GH_PAT=of-a-variable, "SLACK_WEBHOOK=https://hooks.example.com/services/of-a-webhook"]
    metadata:
      password: |
        of-a-block
      credentials: {user: of-a-mapping}
      tokens: [of-a-list, of-two-of-them]
      max_tokens: 4096
      ? secret
      : of-an-explicit-key
      flow: { user_token: of-a-flow, api_key: of-its-end }
"""


def test_a_file_is_shown_without_what_looks_like_a_secret() -> None:
    """Secrets are hidden in every YAML spelling; other text stays."""
    loaded = parse(WRITTEN, environ={"CI_KEY": "of-the-environment"})
    shown = loaded.texts()["config"]
    for secret in (
        *("hf_abc", "of-a-macro", "of-the-next-line", "in-a-folded-text", "in-json-text"),
        *("of-a-variable", "of-a-webhook", "of-a-block", "of-a-mapping", "of-a-list"),
        *("of-two-of-them", "of-an-explicit-key", "of-a-flow", "of-its-end"),
    ):
        assert secret not in shown, shown
    for kept in ("4096", "{ user_token: ***, api_key: *** }", "${env.CI_KEY}", "--hf-token"):
        assert kept in shown


def test_what_models_print_is_shown_without_the_secrets_of_the_file() -> None:
    """A model's server may print its environment, so secrets are hidden without names, too."""
    hide = parse(WRITTEN, environ={"CI_KEY": "of-the-environment"}).config.hide
    said = "of-the-environment of-a-variable of-the-next-line of-a-list hf_ 4096 serve"
    assert hide(said) == "${env.CI_KEY} *** *** *** hf_ 4096 serve"


@pytest.mark.parametrize("value", ["none", "EMPTY", "12345678", "${env.X}", "ab", "true"])
def test_a_word_that_is_no_secret_is_not_looked_for_everywhere(value: str) -> None:
    """If llamadoze replaced such words everywhere, nothing would stay readable."""
    text = f"models: {{m: {{cmd: 'serve ${{PORT}} --api-key {value}', description: {value}s}}}}"
    assert parse(text, environ={"X": ""}).config.hide(f"a {value}s b") == f"a {value}s b"


def test_something_is_shown_in_place_of_a_key() -> None:
    """The placeholder tells that a value was there."""
    text = f"apiKeys: [{SECRET}]\nlogLevel: 'loud {SECRET}'"
    assert "'loud ***' is none of debug, info, warn, error" in said(text)


def test_keys_are_not_in_what_a_debugger_prints() -> None:
    """Keys are also missing from tracebacks that show values."""
    text = f"""
    apiKeys: [{SECRET}]
    peers: {{p: {{proxy: "http://x:1", models: [m], apiKey: {SECRET}}}}}
    models: {{m: {{cmd: "x ${{PORT}} --key {SECRET}", env: [KEY={SECRET}]}}}}
    """
    assert SECRET not in repr(parse(text).config)


@pytest.mark.parametrize(
    "text",
    [
        "logLevel: ${env.S}",
        "startPort: ${env.S}",
        "startPort: 'a ${env.S}'",
        "apiKeys: [${env.S}, 1]",
        "${env.S}: 1",
        "models: {'${env.S}': {cmd: x, ttl: soon}}",
        "models: {m: {cmd: x, proxy: ${env.S}}}",
        "models: {m: {cmd: 'x ${PORT}', aliases: [${env.S}, ${env.S}]}}",
        "macros: {a: '${env.S}'}\nmodels: {m: {cmd: x, proxy: 'http://x:1', ttl: '${a}'}}",
        "macros: {a: '${env.S}'}\nhooks: {on_startup: {preload: ['${a}x']}}",
        "groups: {g: {members: [${env.S}]}}",
        "profiles: {p: {pins: {x: ${env.S}}}}",
        "peers: {p: {proxy: ':${env.S}', models: [m]}}",
        "matrix: {sets: {s: 'a & ${env.S}'}}",
        "upstream: {ignorePaths: ['(${env.S}']}",
        "performance: {every: ${env.S}}",
        "store: {path: /nowhere/at/all/${env.S}}",
        "models: {m: {cmd: 'x ${PORT}', sleepEndpoints: [{endpoint: 'a ${env.S}'}]}}",
        "models: {m: {cmd: 'x ${PORT}', checkEndpoint: 'a ${env.S}'}}",
        "macros: {'${env.S}': [1]}",
        "models: {m: {cmd: 'x ${PORT} && ${env.S}; $(${env.S})'}}",
        "models: {m: {cmd: '${env.S}=1 x ${PORT}'}}",
        "models: {m: {cmd: 'x ${PORT} pa$${env.S} ~/${env.S} >${env.S} C:\\${env.S}'}}",
        "upstream: {ignorePaths: ['(?P<${env.S}>a)(?P<${env.S}>a)']}",
        "macros: {'${env.S}': 1, b: '${${env.S}x}'}\nmodels: {m: {cmd: '${b} ${PORT}'}}",
        "models: {m: {cmd: 'x ${PORT}', '${env.S}': 1, healthCheckTimeOut: '${env.S}'}}",
    ],
    ids=range(26),
)
def test_values_of_the_environment_are_never_shown(text: str) -> None:
    """Messages show the value as the file writes it, such as ${env.S}."""
    assert SECRET not in said(text, {"S": SECRET})


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("models: {m: {cmd: 'x ${PORT} ${env.S}'}}", "sk-$hiddenpart"),
        ("models: {m: {cmd: 'x ${PORT} ${env.S}'}}", "a >hiddenpart"),
        ("models: {m: {cmd: 'x ${PORT} ${env.S}'}}", "~/hiddenpart"),
        ("models: {m: {cmd: '${env.S} x ${PORT}'}}", "hiddenpart=abc"),
        ("macros: {a: '${env.S}'}\nmodels: {m: {cmd: '${a} x ${PORT}'}}", "hiddenpart=abc"),
        ("matrix: {sets: {s: '${env.S}'}}", "hiddenpart&two"),
        ("matrix: {sets: {s: '${env.S}'}}", "one hiddenpart"),
        (
            "macros: {a: '${env.S}'}\n"
            "models: {m: {cmd: 'x ${PORT}', filters: {setParamsByID: {'${a}:x': 1}}}}",
            "hiddenpart",
        ),
        ("models: {m: {cmd: x, proxy: 'http://localhost:${env.S}', ttl: ${env.S}}}", "471147"),
        ("globalTTL: ${env.S}", "4711.47"),
        ("models: {m: {cmd: 'x ${PORT}', proxy: 'ftp://u:hiddenpart@${env.S}'}}", "host"),
        (
            "macros: {a: '${env.S}'}\nmodels: {m: {cmd: x, proxy: 'ftp://u:hiddenpart${a}@h'}}",
            "host",
        ),
    ],
)
def test_pieces_of_values_are_not_shown_either(text: str, secret: str) -> None:
    """Pieces are a command's word, an expression's name, a number, or a password beside it."""
    shown = said(text, {"S": secret})
    assert shown
    assert "hiddenpart" not in shown
    assert "4711" not in shown


def test_passwords_in_addresses_are_not_shown() -> None:
    """A password in an address is a secret like a key."""
    text = f"models: {{m: {{cmd: x, proxy: 'http://user:{SECRET}@host:port'}}}}"
    assert said(text) == (
        "f:1:22: models.m.proxy: "
        "expected an address such as http://127.0.0.1:8000, found 'http://***@host:port'"
    )


def test_short_values_do_not_garble_what_is_shown() -> None:
    """A whole value is hidden however short it is, but not a letter within a word."""
    text = "models: {m: {cmd: 'x ${PORT} ${env.ONE}', aliases: [x1, [y]], ttl: 'x1'}}"
    assert said(text, {"ONE": "1"}) == (
        "f:1:57: models.m.aliases.1: expected a text, found a list\n"
        "f:1:63: models.m.ttl: expected whole seconds, 0 for never or -1, found 'x1'"
    )
    assert "${env.ONE}" in said("startPort: ${env.ONE}x", {"ONE": "1"})


def test_what_was_written_is_shown_instead() -> None:
    """The message still tells where the value comes from."""
    assert said("startPort: 'port ${env.S}'", {"S": SECRET}) == (
        "f:1:1: startPort: expected a port, 1 to 65535, found 'port ${env.S}' (its value is hidden)"
    )
    assert said(
        "models: {'${env.S}': {cmd: x, proxy: 'http://x:1', ttl: soon}}", {"S": SECRET}
    ) == ("f:1:52: models.${env.S}.ttl: expected whole seconds, 0 for never or -1, found 'soon'")


@given(value=st.text(st.characters(exclude_characters="\n\r\0"), min_size=8, max_size=80))
def test_no_value_is_shown_in_any_spelling(value: str) -> None:
    """The value stays hidden when it is quoted, escaped or shortened."""
    text = "startPort: '${env.S}'\nmodels: {m: {cmd: x, proxy: ' ${env.S}', ttl: ${env.S}}}"
    shown = said(text, {"S": f"§{value}"})
    assert "§" not in shown
    assert "\\xa7" not in shown
