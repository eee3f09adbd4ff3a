"""llamadoze reports all problems of a file at once, each with its place."""

from __future__ import annotations

import time

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
    aliases: [x, [5]]
  c: 7
  d: {cmd: x, proxy: "ftp://x", aliases: [same], env: [NAME]}
  e: {cmd: x, proxy: "http://x:eighty", aliases: [same]}
"""


def test_every_problem_is_said_at_once_in_the_files_order() -> None:
    """One run shows everything to fix, with line, column and path."""
    with pytest.raises(ConfigError) as caught:
        parse(BAD, "f.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "f.yaml:1:1: healthCheckTimeout: expected whole seconds, found '12x'",
        "f.yaml:3:1: cmdSleepTimeout: expected whole seconds, at least 1, found 0",
        "f.yaml:6:29: models.a.cmd: unknown macro '${NOPE}'; declare it in macros",
        "f.yaml:7:5: models.a.cmdSleep: cmdSleep needs cmdWake as well",
        "f.yaml:7:5: models.a.cmdSleep: the quote ' is not closed",
        "f.yaml:8:5: models.a.cmdSleepTimeout: expected whole seconds, at least 1, found true",
        "f.yaml:9:5: models.a.ttl: expected whole seconds, 0 for never or -1, found -3",
        "f.yaml:10:5: models.a.ttl: the key is given twice, on lines 9 and 10",
        "f.yaml:11:3: models.b.proxy: proxy is missing: use ${PORT} in cmd, or set the server's "
        "address",
        "f.yaml:12:5: models.b.cmdSleep: cmdSleep needs cmdWake as well",
        "f.yaml:14:5: models.b.unlisted: expected true or false, found 1",
        "f.yaml:15:18: models.b.aliases.1: expected a text, found a list",
        "f.yaml:16:3: models.c: expected the model's settings, found 7",
        "f.yaml:18:15: models.e.proxy: "
        "expected an address such as http://127.0.0.1:8000, found 'http://x:eighty'",
        "f.yaml:18:51: models.e.aliases.0: alias 'same' is already an alias of 'd' "
        "(see f.yaml:17:43)",
    ]


def test_unknown_keys_warn_with_the_nearest_known_one() -> None:
    """They do not refuse the file: real files have keys of other programs."""
    with pytest.raises(ConfigError) as caught:
        parse(BAD, "f.yaml")
    assert [str(warning) for warning in caught.value.warnings] == [
        "f.yaml:2:1: bogus: unknown key, ignored",
        "f.yaml:11:3: models.b.cmd: cmd is missing, so the model cannot be started",
        "f.yaml:13:5: models.b.cmdWke: unknown key, ignored; did you mean 'cmdWake'?",
        "f.yaml:17:15: models.d.proxy: "
        "expected an http address such as http://127.0.0.1:8000, found 'ftp://x'",
        "f.yaml:17:56: models.d.env.0: expected NAME=value; the entry is ignored",
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
    """A file that is no mapping of keys gets one clear line."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("text", ["", "# nothing\n", "models:\n", "models: {}\n"])
def test_an_empty_file_is_a_daemon_without_models(text: str) -> None:
    """llama-swap starts with such a file, too."""
    assert parse(text).config.models == {}


def test_holders_of_anchors_may_hold_any_macro() -> None:
    """Text under unknown top-level keys is checked where it is used.

    A key that holds an anchor is no mistake, and neither is one that begins with x-; others are.
    """
    text = """
    common: &common {cmd: "serve ${PORT}", ttl: 60}
    deep: {down: [&name word]}
    x-notes: {by: me}
    other: &unused 1
    models: {m: {<<: *common, name: *name}}
    """
    loaded = parse(text, environ={})
    assert loaded.config.models["m"].cmd.argv == ("serve", "5800")
    assert [w.path for w in loaded.warnings] == ["other"]


def test_one_mistake_is_one_problem() -> None:
    """llamadoze does not report what follows from the mistake."""
    text = "startPort: 99999\nmodels: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}', proxy: [12]}}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert [str(problem) for problem in caught.value.problems] == [
        "f:1:1: startPort: expected a port, 1 to 65535, found 99999",
        "f:2:55: models.b.proxy: expected a text, found a list",
    ]


def test_a_word_that_is_no_log_level_is_warned_of() -> None:
    """An unknown level counts as info, as in llama-swap."""
    assert [w.message for w in parse("logLevel: loud").warnings] == [
        "'loud' is none of debug, info, warn, error, so info is used"
    ]


def test_empty_sections_are_warned_of() -> None:
    """An author who writes a key without a value forgot something; an empty list is meant."""
    text = "macros:\nhooks:\n  on_startup:\nmodels: {m: {cmd: 'x ${PORT}', env: , aliases: []}}\n"
    assert [str(w) for w in parse(text, "f").warnings] == [
        "f:1:1: macros: has no value, so it is ignored",
        "f:3:3: hooks.on_startup: has no value, so it is ignored",
        "f:4:32: models.m.env: has no value, so it is ignored",
    ]


def test_numbers_that_llama_swap_cuts_are_cut_and_warned_of() -> None:
    """llama-swap's YAML library reads 1.5 as 1; llamadoze's own limits accept no fractions."""
    loaded = parse("globalTTL: 1.5\nunloadTimeout: 2e1\n", "f")
    assert (loaded.config.global_ttl, loaded.config.unload_timeout) == (1, 20)
    assert [str(w) for w in loaded.warnings] == [
        "f:1:1: globalTTL: expected a whole number: the fraction of 1.5 is ignored"
    ]


def test_keys_for_the_address_are_pointed_to_the_command_line() -> None:
    """Many files have such keys, but they have no effect."""
    (warning,) = parse("listen: ':8080'").warnings
    assert warning.message == (
        "unknown key, ignored; set the address to listen on with --listen HOST:PORT"
    )


def test_a_key_without_effect_is_said_once_for_all_models() -> None:
    """One warning is enough, even for fifty models."""
    text = "models: {a: %s, b: %s, c: %s}" % ((("{cmd: 'x ${PORT}', healthCheckTimeout: 9}"),) * 3)
    assert [(w.path, w.message) for w in parse(text).warnings] == [
        (
            "models.a.healthCheckTimeout",
            "ignored, as in llama-swap; use the model's readyTimeout (and 2 more models)",
        )
    ]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            "logToStdout: all",
            "logToStdout: expected both, none, or some of proxy, upstream and http, with commas, ",
        ),
        ("performance: {every: 4s}", "performance.every: must be at least 5s"),
        ("performance: {every: soon}", "performance.every: expected a time such as 5s or 1m30s, "),
        ("performance: {every: 5}", "performance.every: expected a time such as 5s or 1m30s, "),
        ("performance: {every: 0}", "performance.every: expected a time such as 5s or 1m30s, "),
        (f"performance: {{every: '{'1' * 50_000}'}}", "performance.every: expected a time such"),
        ("apiKeys: ['']", "apiKeys.0: the key is empty"),
        ("store: {path: ' '}", "store.path: store needs a path"),
        ("store: {path: /}", "store.path: '/' is a folder, not a file"),
        ("upstream: {ignorePaths: ['(']}", "upstream.ignorePaths.0: '(' is no regular expression"),
        (
            "upstream: {ignorePaths: ['(?=a)']}",
            "upstream.ignorePaths.0: '(?=a)' is no regular expression (invalid perl operator); RE2",
        ),
        ("globalTTL: -1", "globalTTL: expected whole seconds, at least 0, found -1"),
        ("hooks: {on_startup: {preload: m}}", "hooks.on_startup.preload: expected a list, found"),
        ("groups: [a]", "groups: expected names and values, found a list"),
        ("ui: on", "ui: expected settings such as activity, found 'on'"),
        ("routing: {scheduler: {use: lifo}}", "routing.scheduler.use: expected fifo, found 'lifo'"),
    ],
)
def test_what_llama_swap_refuses_at_the_top_is_refused(keys: str, problem: str) -> None:
    """Each error names the path and the value."""
    with pytest.raises(ConfigError) as caught:
        parse(keys, "f")
    assert f": {problem}" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("ttl: -2", "ttl: expected whole seconds, 0 for never or -1, found -2"),
        ("unloadTimeout: -1", "unloadTimeout: expected whole seconds, at least 0, found -1"),
        (
            "capabilities: {context: -1}",
            "capabilities.context: expected a whole number, at least 0",
        ),
        ("ttl: '60'", "ttl: expected whole seconds, 0 for never or -1, found '60'"),
        ("unlisted: maybe", "unlisted: expected true or false, found 'maybe'"),
        ("env: [{A: b}]", "env.0: expected a text, found names and values"),
        ("cmdStop: [a]", "cmdStop: expected a command as text, found a list"),
        ("filters: {setParamsByID: {x: 1}}", "filters.setParamsByID.x: expected names and values"),
        ("readyTimeout: 0", "readyTimeout: expected whole seconds, at least 1, found 0"),
        (
            "sleepTtl: 5",
            "sleepTtl: the model cannot sleep: give it sleep, cmdSleep and cmdWake, or ",
        ),
    ],
)
def test_what_is_refused_in_a_model(keys: str, problem: str) -> None:
    """This includes what llama-swap refuses, and wrong values for llamadoze's own keys."""
    with pytest.raises(ConfigError) as caught:
        parse(f"models: {{m: {{cmd: 'x ${{PORT}}', {keys}}}}}", "f")
    assert f": models.m.{problem}" in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "\\p{Greek}",
        "\\Qa.b\\E",
        "a(?i)b",
        "(?U)a+",
        "(?<n>a)",
        "[[:alpha:]]+",
        "C:\\\\1",
        "\\x{10FFFF}",
    ],
)
def test_regular_expressions_of_re2_are_taken(pattern: str) -> None:
    """RE2's expressions differ from Python's."""
    quoted = pattern.replace("'", "''")
    assert parse(f"upstream: {{ignorePaths: ['{quoted}']}}").config.upstream.ignore_paths


def test_what_is_too_much_for_llama_swaps_keys_counts_as_the_most() -> None:
    """A ttl of three hundred years is shortened to about thirty."""
    assert parse("globalTTL: 9999999999").config.global_ttl == 1_000_000_000


def test_what_llama_swap_takes_is_taken() -> None:
    """Examples: numbers for texts, words for truth values, limits too small, odd addresses."""
    text = """
    healthCheckTimeout: -5
    captureBuffer: -1
    sendLoadingState: yes
    logRequests: {what: ever}
    routing: {router: {use: ""}, scheduler: {use: "", settings: {fifo: {priority: {m: }}}}}
    models:
      1.10: {cmd: 12, proxy: localhost, aliases: [4, 3.50, true, ~], useModelName: 7, unlisted: off}
      empty:
      away: {cmd: x, proxy: ""}
      odd: {cmd: x, proxy: "http://localhost:1/a b?x=%zz"}
      m: {cmd: "x ${PORT}", healthCheckTimeout: 300, timeouts: {connect: -1}, concurrencyLimit: -2}
    """
    config = parse(text).config
    assert config.models["1.10"].aliases == ("4", "3.50", "true")
    assert config.models["1.10"].cmd.argv == ("12",)
    assert config.models["1.10"].use_model_name == "7"
    assert config.send_loading_state
    assert list(config.models) == ["1.10", "empty", "away", "odd", "m"]


def test_names_are_shown_fit_for_a_terminal() -> None:
    """One problem is one line, whatever characters a model's name has."""
    text = 'models: {"a\\nb\\e[31m": {cmd: "x ${PORT}", ttl: x}}'
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    name, ttl = str(caught.value).splitlines()
    assert name.startswith("f:1:10: models.a\\nb\\x1b[31m: a name cannot have a line break")
    assert ttl.startswith("f:1:43: models.a\\nb\\x1b[31m.ttl: expected whole seconds")


def test_characters_that_may_not_be_in_yaml_are_shown_where_they_are() -> None:
    """llamadoze finds the place itself, because the YAML parser does not report it."""
    with pytest.raises(ConfigError) as caught:
        parse("a: 1\nb: 2\nc: x\x01", "f")
    assert str(caught.value) == "f:3:5: not valid YAML: YAML does not allow the character 0x0001"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: *b", "f:1:4: not valid YAML: no anchor of this name comes before this alias"),
        ("a: !!binary x", "f:1:1: a: this YAML tag is not supported"),
        ("a: !!int x", "f:1:1: a: its tag says !!int, but the value is none"),
        (
            "a: &a {}\nb:\n  <<: *a\n  <<: *a",
            "f:4:3: b.<<: << is given twice; merge a list instead: <<: [*first, *second]",
        ),
        ("models: {m: {}}", "f:1:10: models.m.proxy: proxy is missing: use ${PORT} in cmd, or "),
        ("profiles: {'': {pins: {a: ''}}}", "f:1:12: profiles.: a profile needs a name"),
    ],
)
def test_what_the_yaml_library_of_llama_swap_refuses_is_refused(text: str, problem: str) -> None:
    """Either llama-swap's YAML library or its own checks refuse these."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "models:\n  chat:\n  cmd: x",
            "f:3:3: models.cmd: expected the model's settings, found 'x'; "
            "this is a key of a model: indent it below the model's name",
        ),
        (
            "models:\n  chat:\n    cmd:x",
            "f:2:3: models.chat: expected the model's settings, found "
            "'cmd:x'; a key needs a space behind its colon",
        ),
        (
            "models: {m: {cmd: 'x ${PORT}', aliases: gpt}}",
            "f:1:32: models.m.aliases: expected a list, found 'gpt'; put it in [ ]",
        ),
        (
            "models: {m: {cmd: 'x ${PORT}', env: {A: 1}}}",
            "f:1:32: models.m.env: "
            "expected a list, found names and values; write each as '- NAME=value'",
        ),
        (
            "models: {m: {cmd: 'x ${PORT}', ttl: '300'}}",
            "f:1:32: models.m.ttl: "
            "expected whole seconds, 0 for never or -1, found '300'; write it without quotes",
        ),
        ("a:\n\tb: 1", "f:2:1: not valid YAML: found character that cannot start any token"),
        (
            "a: b: c",
            "f:1:5: not valid YAML: mapping values are not allowed in this context; "
            "check the indentation, or quote a value with ': ' in it",
        ),
        (
            "a: 'b\nc: d\n",
            "f:3:1: not valid YAML: found unexpected end of stream "
            "(while scanning a quoted scalar, from line 1 on); a quote is not closed",
        ),
    ],
)
def test_a_message_says_the_way_out(text: str, problem: str) -> None:
    """These are mistakes that everybody makes once."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sleepTtl: 60",
            "unknown key, ignored; it is a key of a model: move it below a model's name",
        ),
        (
            "models: {m: {cmd: 'x ${PORT}', startPort: 1}}",
            "unknown key, ignored; move it to the top of the file",
        ),
        (
            "models: {m: {cmd: 'x ${PORT}', port: 1}}",
            "unknown key, ignored; set the server's address with proxy, and use ${PORT} in cmd",
        ),
        ("loglevel: warn", "unknown key, ignored; did you mean 'logLevel'?"),
    ],
)
def test_a_key_in_the_wrong_place_is_pointed_to_the_right_one(text: str, message: str) -> None:
    """The key has no effect where it is."""
    assert [warning.message for warning in parse(text).warnings] == [message]


def test_many_mistakes_are_found_in_no_time() -> None:
    """llamadoze stops looking for hints after more problems than anybody reads."""
    models = "\n".join(f"  model-{n}: {{cmd: 'x ${{PORT}}'}}" for n in range(500))
    members = ", ".join(f"modell-{n}" for n in range(500))
    unknown = "\n".join(f"    kye{n}: 1" for n in range(500))
    text = f"models:\n{models}\n  m:\n    cmd: x ${{PORT}}\n{unknown}\n"
    began = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse(f"{text}groups: {{g: {{members: [{members}]}}}}\n", "f")
    assert time.perf_counter() - began < 5
    said = [problem.message for problem in caught.value.problems]
    assert len(said) == 500
    assert said[0] == "there is no model 'modell-0'; did you mean 'model-0'?"
    assert said[-1] == "there is no model 'modell-499'"


def test_a_macro_in_one_name_renames_no_other() -> None:
    """A name in filters may be ``${MODEL_ID}`` while the same model has a fault elsewhere."""
    text = """
    models:
      m1:
        cmd: s ${PORT}
        filters:
          setParamsByID:
            "${MODEL_ID}": 1
            "${nobody}": {}
        ttl: abc
    """
    with pytest.raises(ConfigError) as caught:
        parse(text)
    value, name, ttl = map(str, caught.value.problems)
    assert value.startswith("config:7:13: models.m1.filters.setParamsByID.${MODEL_ID}: expected")
    assert name.startswith("config:8:13: models.m1.filters.setParamsByID.${nobody}: unknown macro")
    assert "models.m1.ttl: expected whole seconds" in ttl


def test_a_value_of_the_environment_renames_no_model() -> None:
    """A message uses the model's name as the file has it, even if a variable has the same value."""
    text = "models: {m1: {cmd: '${env.NAME}', ttl: abc}}\ngroups: {g: {members: [m1, m1]}}"
    with pytest.raises(ConfigError) as caught:
        parse(text, environ={"NAME": "m1"})
    assert "models.m1.ttl" in str(caught.value)
    assert "'m1' is a member twice" in str(caught.value)


def test_a_value_that_is_not_shown_is_called_hidden() -> None:
    """The message must say that the value is wrong, and not that there is a macro."""
    with pytest.raises(ConfigError, match=r"found '\$\{env.T\}' \(its value is hidden\);"):
        parse("models: {m: {cmd: 'x ${PORT}', ttl: '${env.T}'}}", environ={"T": "1"})


def test_a_name_of_the_environment_that_is_advised_hides_nothing() -> None:
    """The advice is shown in full, even if the file uses the variable elsewhere."""
    with pytest.raises(ConfigError, match=r"did you mean '\$\{env.HOME\}'\?$"):
        parse("models: {m: {cmd: '${HOME}/x ${env.HOME} ${PORT}'}}", environ={"HOME": "/home/me"})


def test_backslashes_are_shown_as_they_are() -> None:
    """Backslashes are not doubled, because an operator does not write Python."""
    loaded = parse(r"models: {m: {cmd: 'a C:\U ${PORT}'}}")
    assert r"as in 'C:\U':" in loaded.warnings[0].message


@pytest.mark.parametrize("value", ["http", "both", "none", " upstream , http "])
def test_outputs_of_the_log_may_be_several(value: str) -> None:
    """The newest llama-swap accepts several outputs, too."""
    assert parse(f"logToStdout: '{value}'").config.log_to_stdout == value


@pytest.mark.parametrize("value", ["''", "'proxy,'", "proxy,both", "stdout", "[proxy]", "1"])
def test_outputs_of_the_log_are_known(value: str) -> None:
    """The newest llama-swap refuses unknown outputs, too."""
    with pytest.raises(ConfigError, match="expected both, none, or some of proxy, upstream and"):
        parse(f"logToStdout: {value}")
