"""Several files form one configuration, by llama-swap's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from configschema import Config, ConfigError, files_in, load


def merged(folder: Path, *texts: str) -> Config:
    files = [folder / f"{number}.yaml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return load(*files, environ={}).config


def problems(folder: Path, *texts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        merged(folder, *texts)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_sections_are_united_and_lists_joined(tmp_path: Path) -> None:
    """Each file may add keys; the same value in two files is no conflict."""
    config = merged(
        tmp_path,
        "logLevel: warn\nmacros: {a: 1}\nmodels: {m: {cmd: 'x ${PORT} ${a} ${b}'}}\nstartPort:\n",
        "logLevel: warn\nmacros: {b: 2}\nhooks: {on_startup: {preload: [m]}}\nstartPort: 9000\n",
        "models: {n: {cmd: 'x ${PORT}'}}\nhooks: {on_startup: {preload: [n]}}\nmacros:\n",
    )
    assert config.models["m"].cmd.argv == ("x", "9000", "1", "2")
    assert list(config.models) == ["m", "n"]
    assert config.hooks.on_startup.preload == ("m", "n")


def test_files_without_content_change_nothing(tmp_path: Path) -> None:
    """This applies to empty files and to files with nothing but comments."""
    assert merged(tmp_path, "", "# nothing\n", "logLevel: debug\n").log_level == "debug"


def test_the_same_word_may_be_written_in_two_ways(tmp_path: Path) -> None:
    """The word may be quoted or come from the environment; but a text is not equal to a number."""
    for number, text in enumerate(["debug", "'debug'", '"debug"', "${env.L}", "${env.NOTHING}"]):
        (tmp_path / f"{number}.yaml").write_text(f"logLevel: {text}\n")
    config = load(*files_in(tmp_path), environ={"L": "debug", "NOTHING": ""}).config
    assert config.log_level == "debug"
    assert problems(tmp_path, "macros: {a: 1}\n", "macros: {a: '1'}\n")


def test_different_words_are_a_conflict_of_two_places(tmp_path: Path) -> None:
    """Neither of the two files takes precedence."""
    assert problems(tmp_path, "logLevel: warn\n", "\nlogLevel: info\n") == [
        "0.yaml:1:1: logLevel: two files set this key to different values: 0.yaml:1 and 1.yaml:2"
    ]
    assert problems(tmp_path, "macros: {a: 1}\n", "macros: [a]\n") == [
        "0.yaml:1:1: macros: two files set this key to different values: 0.yaml:1 and 1.yaml:1"
    ]


@pytest.mark.parametrize("section", ["models", "groups", "peers", "profiles", "selectors"])
def test_what_has_a_name_is_in_one_file(tmp_path: Path, section: str) -> None:
    """A model that is split over two files is a mistake, and so is any other named section."""
    text = f"{section}:\n  one: {{}}\n"
    expected = f"0.yaml:2:3: {section}.one: is in two files: 0.yaml:2 and 1.yaml:2"
    assert expected in problems(tmp_path, text, text)


def test_problems_name_their_file(tmp_path: Path) -> None:
    """All problems come at once, in the order of the files, even if a file is no YAML."""
    assert problems(
        tmp_path, "startPort: x\n", "models: {m: {ttl: y, cmd: 'x ${PORT}'}}\nunloadTimeout: z\n"
    ) == [
        "0.yaml:1:1: startPort: expected a port, 1 to 65535, found 'x'",
        "1.yaml:1:14: models.m.ttl: expected whole seconds, 0 for never or -1, found 'y'",
        "1.yaml:2:1: unloadTimeout: expected whole seconds, at least 0, found 'z'",
    ]
    assert problems(tmp_path, "a: [\n", "- a\n", "logLevel: warn\n") == [
        "0.yaml:2:1: not valid YAML: did not find expected node content",
        "1.yaml:1:1: expected keys with values, such as models:",
    ]


def test_the_files_of_a_folder_are_taken_by_name(tmp_path: Path) -> None:
    """Only files that end in .yaml or .yml count; folders inside the folder do not."""
    for name in ("b.yaml", "a.yml", "c.txt", "d.yaml.bak"):
        (tmp_path / name).touch()
    (tmp_path / "e.yaml").mkdir()
    assert [file.name for file in files_in(tmp_path)] == ["a.yml", "b.yaml"]


def test_what_an_alias_stands_for_is_not_changed_elsewhere(tmp_path: Path) -> None:
    """Merging a second file changes only one of the places that use the anchor."""
    config = merged(
        tmp_path,
        "hooks: {on_startup: {preload: &list [a]}}\n"
        "macros: &own {x: 1}\n"
        "groups: {g: {members: *list}}\n"
        "models: {a: {cmd: 'x ${PORT}', macros: *own}, b: {cmd: 'x ${PORT}'}}\n",
        "hooks: {on_startup: {preload: [b]}}\nmacros: {y: 2}\n",
    )
    assert config.hooks.on_startup.preload == ("a", "b")
    assert config.groups["g"].members == ("a",)
    assert config.models["a"].macros == {"x": 1}


def test_names_from_the_environment_are_names_like_others(tmp_path: Path) -> None:
    """llamadoze detects the same model in two files, even if one uses a variable for its name."""
    files = [tmp_path / f"{number}.yaml" for number in (0, 1)]
    for file, name in zip(files, ("a", "${env.N}"), strict=True):
        file.write_text(f"models:\n  {name}:\n    cmd: x ${{PORT}}\n")
    with pytest.raises(ConfigError, match=r"is in two files: .*0\.yaml:2 and .*1\.yaml:2"):
        load(*files, environ={"N": "a"})


def test_each_file_may_have_a_merge_key(tmp_path: Path) -> None:
    """A merge key uses the anchors of its own file."""
    text = "base: &b {%s: 1}\nmacros: {<<: *b}\n"
    first, second = text % "x", text.replace("base", "other") % "y"
    model = "models: {m: {cmd: 'x ${PORT} ${x} ${y}'}}\n"
    assert merged(tmp_path, first, second + model).models["m"].cmd.argv[2:] == ("1", "1")


def test_files_that_are_no_text_are_told_in_their_turn(tmp_path: Path) -> None:
    """Each file gets its error, whatever is wrong with the files before it."""
    files = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml")]
    for file, content in zip(files, (b"a: [", b"caf\xe9: 1", b"- 1"), strict=True):
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(*files)
    assert [Path(problem.file).name for problem in caught.value.problems] == [f.name for f in files]
