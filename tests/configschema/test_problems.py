"""All problems of a file at once, each where it is."""

from __future__ import annotations

import pytest

from configschema import ConfigError, parse

BAD = """\
healthCheckTimeout: "12x"
bogus: 1
cmdSleepTimeout: 0
models:
  a:
    cmd: run --port ${PORT} ${NOPE}
    cmdSleep: "curl 'x"
    cmdSleepTimeout: true
    ttl: -3
    ttl: 4
  b:
    cmdSleep: x
    cmdWke: y
    unlisted: 1
    aliases: [x, 5]
  c: 7
  d: {cmd: x, proxy: "ftp://x", aliases: [same], env: [NAME]}
  e: {cmd: x, proxy: "http://x:99999", aliases: [same]}
"""


def test_every_problem_is_said_at_once_in_the_files_order() -> None:
    """One run shows all there is to mend, with line, column and path."""
    with pytest.raises(ConfigError) as caught:
        parse(BAD, "f.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "f.yaml:1:1: healthCheckTimeout: expected whole seconds, at least 0, found '12x'",
        "f.yaml:3:1: cmdSleepTimeout: expected whole seconds, at least 1, found 0",
        "f.yaml:6:5: models.a.cmd: unknown macro '${NOPE}'",
        "f.yaml:7:5: models.a.cmdSleep: cannot be split into arguments: No closing quotation",
        "f.yaml:7:5: models.a.cmdSleep: cmdWake is required where cmdSleep is given",
        "f.yaml:8:5: models.a.cmdSleepTimeout: expected whole seconds, at least 1, found true",
        "f.yaml:9:5: models.a.ttl: the key is given twice, on lines 9 and 10",
        "f.yaml:11:3: models.b.proxy: proxy is missing: use ${PORT} in cmd, or name the address",
        "f.yaml:12:5: models.b.cmdSleep: cmdWake is required where cmdSleep is given",
        "f.yaml:14:5: models.b.unlisted: expected true or false, found 1",
        "f.yaml:15:5: models.b.aliases: item 2: expected a text, found 5",
        "f.yaml:16:3: models.c: expected the model's settings",
        "f.yaml:17:15: models.d.proxy: "
        "expected an address such as http://127.0.0.1:8000, found 'ftp://x'",
        "f.yaml:17:50: models.d.env: expected NAME=value, found 'NAME'",
        "f.yaml:18:15: models.e.proxy: "
        "expected an address such as http://127.0.0.1:8000, found 'http://x:99999'",
        "f.yaml:18:40: models.e.aliases: alias 'same' is already an alias of 'd'",
    ]


def test_unknown_keys_warn_with_the_nearest_known_one() -> None:
    """They do not refuse the file: real files carry keys of other programs."""
    with pytest.raises(ConfigError) as caught:
        parse(BAD, "f.yaml")
    assert [str(warning) for warning in caught.value.warnings] == [
        "f.yaml:2:1: bogus: unknown key, ignored",
        "f.yaml:11:3: models.b.cmd: there is no cmd: the model cannot be started",
        "f.yaml:13:5: models.b.cmdWke: unknown key, ignored; did you mean 'cmdWake'?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1", "f:2:1: not valid YAML: "),
        ("- a\n- b\n", "f:1:1: expected keys with values"),
        ("just words", "f:1:1: expected keys with values"),
        ("models: [a]", "f:1:1: models: expected model names, each with its settings"),
        ("macros: [a]", "f:1:1: macros: expected names with values"),
    ],
)
def test_files_of_another_shape_are_refused(text: str, problem: str) -> None:
    """What is no mapping of keys gets one clear line."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("text", ["", "# nothing\n", "models:\n", "models: {}\n"])
def test_an_empty_file_is_a_daemon_without_models(text: str) -> None:
    """As in llama-swap."""
    assert parse(text).config.models == {}


def test_what_stands_under_unknown_keys_is_nobodys_business() -> None:
    """Holders of anchors, and the keys of other programs, may hold any macro."""
    text = """
    x-common: &common {cmd: "serve ${PORT}", ttl: 60}
    hooks: {on: "${env.NOT_SET} ${nothing}"}
    models: {m: {<<: *common, filters: {x: "${nothing}"}}}
    """
    loaded = parse(text, environ={})
    assert loaded.config.models["m"].cmd.argv == ("serve", "5800")
    assert [w.path for w in loaded.warnings] == ["x-common", "hooks", "models.m.filters"]


def test_one_mistake_is_one_problem() -> None:
    """What follows from it is not said."""
    text = "startPort: 99999\nmodels: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}', proxy: 12}}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert [str(problem) for problem in caught.value.problems] == [
        "f:1:1: startPort: expected a port, 1 to 65535, found 99999",
        "f:2:55: models.b.proxy: expected a text, found 12",
    ]


def test_a_word_that_is_no_log_level_is_warned_of() -> None:
    """It counts as info, as in llama-swap."""
    assert [w.message for w in parse("logLevel: loud").warnings] == [
        "'loud' is none of debug, info, warn, error"
    ]


def test_api_keys_that_nobody_checks_are_warned_of_in_plain_words() -> None:
    """An operator must not believe that the port is guarded; the keys are not repeated."""
    (warning,) = parse("apiKeys: [sk-secret]").warnings
    assert warning.message == "keys are not checked yet: whoever reaches the port is served"
