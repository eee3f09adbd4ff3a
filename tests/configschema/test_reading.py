"""Files are read as people usually write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configschema import ConfigError, load, parse
from configschema.keys.commandline import split

MODEL = "models: {m: {cmd: 'x ${PORT}', %s}}"


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "no", "y", "12:30", "1e3", "2026-01-01", "1.0"]
)
def test_words_that_yaml_1_1_would_change_stay_text(word: str) -> None:
    """llama-swap's YAML changes fewer words than YAML 1.1 does, and llamadoze's does the same."""
    assert parse(MODEL % f"name: {word}").config.models["m"].name == word


def test_truth_values_and_numbers_are_what_they_look_like() -> None:
    """true is a truth value, and 0x10 is 16."""
    found = parse(MODEL % "unlisted: true, ttl: 0x10").config.models["m"]
    assert (found.unlisted, found.ttl) == (True, 16)


def test_a_key_without_a_value_has_its_default() -> None:
    """An empty section is the same as none."""
    found = parse(MODEL % "aliases: , env: , cmdSleepTimeout: ~").config.models["m"]
    assert (found.aliases, found.env, found.cmd_sleep_timeout) == ((), (), None)


def test_anchors_and_merge_keys_work() -> None:
    """An anchor lets several models share settings that are written once."""
    text = """
    base: &base {ttl: 60, cmdSleep: s, cmdWake: w}
    models: {m: {<<: *base, cmd: "x ${PORT}", ttl: 30}}
    """
    found = parse(text).config.models["m"]
    assert (found.ttl, found.can_sleep) == (30, True)


def test_line_ends_and_marks_of_windows_are_read(tmp_path: Path) -> None:
    """A byte order mark and CRLF change nothing."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbflogLevel: debug\r\nmodels:\r\n  m: {cmd: 'x ${PORT}'}\r\n")
    assert load(file).config.log_level == "debug"


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    """The error is one line and not a traceback."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"logLevel: debug\nmodels:\n  caf\xe9: {}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:3:1: not UTF-8 text"):
        load(file)


def test_models_are_found_by_id_before_alias() -> None:
    """An alias that is also an id warns, and the id wins."""
    text = """
    models:
      a: {cmd: "x ${PORT}", aliases: [b, c]}
      b: {cmd: "x ${PORT}"}
    """
    loaded = parse(text)
    ids = {name: found.id for name in "abc" if (found := loaded.config.find(name))}
    assert ids == {"a": "a", "b": "b", "c": "a"}
    assert loaded.config.find("d") is None
    assert [w.message for w in loaded.warnings] == [
        "alias 'b' is also the id of a model, so requests for it go there (see config:4:7)"
    ]


def test_commands_are_split_without_a_shell() -> None:
    """Quotes group words; no other shell syntax works."""
    found = parse(MODEL % "cmdSleep: \"sh -c 'curl x && y' $HOME\", cmdWake: w").config.models["m"]
    assert found.cmd_sleep.argv == ("sh", "-c", "curl x && y", "$HOME")


def test_a_configuration_cannot_be_changed() -> None:
    """A loaded configuration is immutable."""
    config = parse(MODEL % "ttl: 1").config
    with pytest.raises(AttributeError):
        config.log_level = "debug"  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "models: {[a]: 1}",
        "models: {{a: b}: 1}",
        "? [a]\n: 1\n",
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "[" * 500 + "]" * 500,
        "[" * 50_000,
        "- " * 100_000,
        "a: !!int abc",
        "a: !!bool x",
        "a: !!float ''",
        "a: !!timestamp 2001-99-99",
        "a: !!python/object:os.system x",
        "startPort: " + "9" * 5000,
        "macros: {a: 0x" + "f" * 5000 + "}\nmodels: {m: {cmd: '${a}', proxy: 'http://x:1'}}",
        "<<: 1",
        "\0",
    ],
    ids=range(17),
)
def test_hostile_files_are_refused_in_words(text: str) -> None:
    """Depth, loops, tags and odd keys cause problems with a message, and never a traceback."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.problems


def test_aliases_of_aliases_are_bounded() -> None:
    """A few lines must not stand for a billion values or take a minute to read."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="more than 1000000 values"):
        parse("\n".join(lines))


def test_ids_are_the_words_that_were_written() -> None:
    """This includes ids that look like numbers or truth values."""
    ids = ["1.10", "0x10", "16", "true", "~", "2026-01-01"]
    models = ", ".join(f"{name}: {{cmd: 'x ${{PORT}}'}}" for name in ids)
    assert list(parse(f"models: {{{models}}}").config.models) == ids


def test_what_no_process_can_be_given_is_refused() -> None:
    """Examples are NUL in a command, a line end in a path, and numbers that are too large."""
    text = """cmdSleepTimeout: 99999999999
startPort: 65535
models:
  a: {cmd: "x \\0 ${PORT}", checkEndpoint: "/a\\r\\nb", proxy: "http://x:1", env: ["A=\\0"]}
  b: {cmd: "x ${PORT}", proxy: "http://x:1"}
"""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    paths = [problem.path for problem in caught.value.problems]
    places = ["models.a.cmd", "models.a.checkEndpoint", "models.a.env.0", "models.b"]
    assert paths == ["cmdSleepTimeout", *places]


def test_an_anchor_may_be_defined_again() -> None:
    """The last anchor before a use applies; real files redefine anchors by copying."""
    text = """
    a: &common {ttl: 1}
    b: &common {ttl: 2}
    models: {m: {<<: *common, cmd: "x ${PORT}"}}
    """
    assert parse(text).config.models["m"].ttl == 2


def test_of_several_merge_keys_the_first_that_has_a_key_wins() -> None:
    """This is YAML's rule; the model's own key wins over all of them."""
    text = """
    a: &a {ttl: 1, name: a}
    b: &b {ttl: 2, name: b, description: b}
    models: {m: {<<: [*a, *b], cmd: "x ${PORT}", name: own}}
    """
    found = parse(text).config.models["m"]
    assert (found.ttl, found.name, found.description) == (1, "own", "b")


def test_a_fault_in_a_merged_value_is_shown_where_it_is_written() -> None:
    """The error points at the anchor, not at the place that uses it."""
    text = "x: &x\n  ttl: soon\nmodels:\n  m: {<<: *x, cmd: 'x ${PORT}'}\n"
    with pytest.raises(ConfigError, match=r"^f:2:3: models\.m\.ttl: expected whole seconds"):
        parse(text, "f")


def test_only_the_first_document_is_read() -> None:
    """llama-swap's YAML library does the same."""
    assert parse("logLevel: warn\n---\nlogLevel: debug\n").config.log_level == "warn"


def test_commands_with_windows_paths_json_and_continuations() -> None:
    """These are commands as people write them."""
    text = r"""
models:
  m:
    cmd: |
      'C:\Program Files\llama\llama-server.exe' --port ${PORT} \
      # it's the large one
        --chat-template-kwargs '{"enable_thinking": false}' \
        --override "a=\"b c\"" --path C:\\models\\m.gguf
"""
    assert parse(text).config.models["m"].cmd.argv == (
        "C:\\Program Files\\llama\\llama-server.exe",
        *("--port", "5800"),
        *("--chat-template-kwargs", '{"enable_thinking": false}'),
        *("--override", 'a="b c"'),
        *("--path", "C:\\models\\m.gguf"),
    )


def test_a_quote_that_is_not_ended_reaches_to_the_end_of_cmd() -> None:
    """llama-swap starts such models; llamadoze does, too, and warns."""
    loaded = parse(MODEL % 'cmdStop: "stop # don\'t wait"')
    assert loaded.config.models["m"].cmd_stop.argv == ("stop", "#", "dont wait")
    assert [w.message.partition(":")[0] for w in loaded.warnings] == [
        "a '#' after arguments begins no comment",
        "the quote ' is not closed",
    ]


@pytest.mark.parametrize(
    ("text", "argv", "open_quote"),
    [
        ("x \\", ("x",), ""),
        ("x 'a\\", ("x", "a "), "'"),
        ('x "a\\', ("x", "a "), '"'),
        ('x "a\\\\" b"', ("x", "a\\", "b"), '"'),
        ("'", ("",), "'"),
        ("\\", (), ""),
    ],
)
def test_commands_may_end_anywhere(text: str, argv: tuple[str, ...], open_quote: str) -> None:
    """The end may be inside a quote, after a backslash, or both."""
    found = split(text)
    assert (found.argv, found.open_quote) == (argv, open_quote)


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ('"a \\$5 \\`b\\` \\"c\\" \\\\ \\n"', ('a $5 `b` "c" \\ \\n',)),
        ("a''b \"\" ''", ("ab", "", "")),
        ("a\\ b c\\\\d", ("a b", "c\\d")),
        ("'a\\'b", ("a\\b",)),
        ("a'b c", ("ab c",)),
        ("\u00a0a", ("\u00a0a",)),
    ],
)
def test_quotes_and_backslashes_are_posixs(text: str, argv: tuple[str, ...]) -> None:
    """llama-swap has the same rules; only blanks, tabs and line ends separate words."""
    assert split(text).argv == argv


def test_tags_that_are_written_hold() -> None:
    """A tag decides the type of a value, whatever the word looks like."""
    text = """
    globalTTL: !!int "60"
    sendLoadingState: !!bool "true"
    macros: {a: !!float "1", b: !!str 1, c: !mine word}
    models: {m: {cmd: "x ${PORT} ${a} ${b} ${c}"}}
    """
    config = parse(text).config
    assert (config.global_ttl, config.send_loading_state) == (60, True)
    assert config.models["m"].cmd.argv[2:] == ("1.0", "1", "word")
