"""Files as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configschema import ConfigError, load, parse

MODEL = "models: {m: {cmd: 'x ${PORT}', %s}}"


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "12:30", "1e3", "2026-01-01"])
def test_words_that_yaml_1_1_would_change_stay_text(word: str) -> None:
    """llama-swap's YAML knows fewer magic words, and so does ours."""
    assert parse(MODEL % f"name: {word}").config.models["m"].name == word


def test_truth_values_and_numbers_are_what_they_look_like() -> None:
    """true is true, 0x10 is sixteen."""
    found = parse(MODEL % "unlisted: true, ttl: 0x10").config.models["m"]
    assert (found.unlisted, found.ttl) == (True, 16)


def test_a_key_without_a_value_has_its_default() -> None:
    """An empty section is as good as none."""
    found = parse(MODEL % "aliases: , env: , cmdSleepTimeout: ~").config.models["m"]
    assert (found.aliases, found.env, found.cmd_sleep_timeout) == ((), (), None)


def test_anchors_and_merge_keys_work() -> None:
    """Shared settings may be written once."""
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
    """Not a traceback."""
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
    assert [w.message for w in loaded.warnings] == ["alias 'b' is also a model's id, which wins"]


def test_commands_are_split_without_a_shell() -> None:
    """Quotes group, nothing else of a shell is there."""
    found = parse(MODEL % "cmdSleep: \"sh -c 'curl x && y' $HOME\", cmdWake: w").config.models["m"]
    assert found.cmd_sleep.argv == ("sh", "-c", "curl x && y", "$HOME")


def test_a_configuration_cannot_be_changed() -> None:
    """Facts are frozen."""
    config = parse(MODEL % "ttl: 1").config
    with pytest.raises(AttributeError):
        config.log_level = "debug"  # type: ignore[misc]
