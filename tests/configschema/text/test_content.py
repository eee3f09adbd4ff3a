"""Which files are read and which serve nothing, as an operator sees it with the command."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from configschema import ConfigError, parse
from configschema.text.content import LONGEST, content_of
from tests.system.daemon import LLAMADOZE, STATE

GOOD = "models: {m: {cmd: 'sh ${PORT}'}}\n"
PATIENCE = 20  # seconds; five of them are for a pipe without data


def check(file: str | Path, *more: str) -> tuple[int, list[str]]:
    """Return the exit status of `llamadoze check` and its lines."""
    done = subprocess.run(
        [LLAMADOZE, "check", str(file), *more],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout.splitlines()


def start(file: str | Path) -> tuple[int, list[str]]:
    """Return the exit status and the lines of a daemon that should serve a file."""
    done = subprocess.run(
        [LLAMADOZE, "--config", str(file), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "XDG_STATE_HOME": STATE},
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def refused(text: str) -> list[str]:
    """Return the problems of a text."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (GOOD.encode("utf-16"), "1:1: not UTF-8 text, but UTF-16: save it as UTF-8"),
        (
            b"\xfe\xff" + GOOD.encode("utf-16-be"),
            "1:1: not UTF-8 text, but UTF-16: save it as UTF-8",
        ),
        (f"# café\n{GOOD}".encode("latin-1"), "1:1: not UTF-8 text: save it as UTF-8"),
        (f"{GOOD}\n# café\n".encode("latin-1"), "3:1: not UTF-8 text: save it as UTF-8"),
        (f"# „café“\n{GOOD}".encode("cp1252"), "1:1: not UTF-8 text: save it as UTF-8"),
        (GOOD.encode("utf-16-le"), "1:1: not UTF-8 text, but UTF-16: save it as UTF-8"),
        (GOOD.encode("utf-16-be"), "1:1: not UTF-8 text, but UTF-16: save it as UTF-8"),
        (f"{GOOD}\0".encode(), "2:1: not valid YAML: YAML does not allow the character 0x0000"),
        (b"\0" * 100, "1:1: not valid YAML: YAML does not allow the character 0x0000"),
        (b"\x7fELF\x02\x01\x01\xff", "1:1: not UTF-8 text: save it as UTF-8"),
    ],
)
def test_other_encodings_are_refused_in_one_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    """The line names the place of the first wrong byte; there is no traceback."""
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    status, (line, verdict) = check(file)
    assert status == 1
    assert line.startswith(f"{file}:{complaint}")
    assert verdict == f"{file}: refused, 1 problem"


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode("utf-8-sig"),
        GOOD.replace("\n", "\r\n").encode(),
        b"models:\r  m:\r    cmd: sh ${PORT}\r",
        f"# café — ü 😀\n{GOOD}".encode(),
    ],
)
def test_utf_8_is_read_with_whatever_ends_its_lines(tmp_path: Path, content: bytes) -> None:
    """A byte order mark, which Windows writes first, is accepted, too."""
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    assert check(file) == (0, [f"{file}: good, 1 model"])


@pytest.mark.parametrize("quote", ["“", "”", "\u2018", "\u2019", "«", "»"])
def test_quotes_of_a_word_processor_are_warned_of(quote: str) -> None:
    """Such quotes become part of the argument, but the file is accepted."""
    (warning,) = parse(f"models: {{m: {{cmd: 'sh -c {quote}x${{PORT}}'}}}}", "f").warnings
    assert (
        warning.message == f"'{quote}' does not quote anything in a command: write a straight quote"
    )
    assert warning.path == "models.m.cmd"


def test_a_pipe_that_nobody_writes_to_ends_with_a_line(tmp_path: Path) -> None:
    """The check and the daemon both give up after a few seconds."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    began = time.monotonic()
    found = check(pipe)
    assert found == (1, [f"{pipe}:1:1: no data has arrived for 5 s", *found[1][1:]])
    assert start(pipe) == (1, [f"{pipe}:1:1: no data has arrived for 5 s"])
    assert time.monotonic() - began < PATIENCE


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """A pipe such as that of ``<(program)`` may have a slow writer that writes in pieces."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed() -> None:
        with pipe.open("w") as file:
            for piece in ("models: {m: ", "{cmd: 'sh ${PORT}'}}"):
                file.write(piece)
                file.flush()
                time.sleep(0.2)

    writer = threading.Thread(target=feed)
    writer.start()
    try:
        assert content_of(pipe) == GOOD.strip().encode()
    finally:
        writer.join(PATIENCE)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("/dev/zero", "the file is larger than 16 MiB, so it is no configuration"),
        ("/dev/null", "nothing is served: there is no model below models:"),
    ],
)
def test_devices_end_with_a_line(file: str, complaint: str) -> None:
    """Even a device that never ends causes only one line."""
    assert check(file) == (1, [f"{file}:1:1: {complaint}", f"{file}: refused, 1 problem"])


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_a_file_may_have_so_much_and_no_more(tmp_path: Path, more: int, *, fits: bool) -> None:
    """The limit is exact to the byte."""
    file = tmp_path / "f.yaml"
    file.write_bytes(GOOD.encode() + b"#" * (LONGEST - len(GOOD) + more))
    if fits:
        assert len(content_of(file)) == LONGEST
    else:
        with pytest.raises(ConfigError, match="larger than 16 MiB, so it is no configuration"):
            content_of(file)


@pytest.mark.parametrize(
    "name",
    [r"a\nb", r"a\tb", r"a\rb", r"a\eb", r"a\x00b", r"a\x7f", r"a\x9b", r"a\u2028b", r"\n", r"a\N"],
)
def test_names_with_control_characters_are_refused(name: str) -> None:
    """Paths and logs cannot show such names as they are; this applies to ids and aliases."""
    what = "a name cannot have a line break or another control character"
    (problem,) = refused(f"models: {{\"{name}\": {{cmd: 'sh ${{PORT}}'}}}}")
    assert problem.endswith(what)
    assert problem.isprintable()
    (problem,) = refused(f"models: {{m: {{cmd: 'sh ${{PORT}}', aliases: [\"{name}\"]}}}}")
    assert problem.endswith(f": models.m.aliases.0: {what}")


@pytest.mark.parametrize("name", ["a b", "ü", "org/m:7b@q4", "模型", "😀", "a'b", "-", "1.5"])
def test_other_names_are_taken(name: str) -> None:
    """llama-swap accepts such names, too."""
    text = f'models: {{"{name}": {{cmd: \'sh ${{PORT}}\', aliases: ["{name} 2"]}}}}'
    assert list(parse(text).config.models) == [name]


@pytest.mark.parametrize("key", ["readyTimeout", "cmdSleepTimeout", "cmdWakeTimeout"])
@pytest.mark.parametrize("given", ["9999999999", "1000000001", "1e12"])
def test_what_is_too_much_is_said_with_the_most(key: str, given: str) -> None:
    """The error names the maximum, instead of calling the value no number."""
    (problem,) = refused(f"models: {{m: {{cmd: 'sh ${{PORT}}', {key}: {given}}}}}")
    limits = "at least 1, at most 1000000000"
    assert f"models.m.{key}: expected whole seconds, {limits}, found " in problem


def test_a_command_by_another_name_is_said_with_the_right_one() -> None:
    """Newcomers make this mistake most often."""
    loaded = parse("models: {m: {command: 'sh ${PORT}', proxy: 'http://127.0.0.1:9'}}", "f")
    assert [str(one) for one in loaded.warnings] == [
        "f:1:14: models.m.command: unknown key, ignored; did you mean cmd?",
    ]


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ("cmd: 'sh ${nope}'", 1),
        ("cmd: '${nope}'", 1),
        ("cmd: '${nope} ${PORT}'", 1),
        ("cmd: '${nope}', checkEndpoint: none", 1),
        ("cmd: '${nope}', ttl: 5, aliases: [x]", 1),
        ("cmd: 'sh ${PORT}', proxy: 'http://${nope}:9'", 1),
        ("cmd: '${nope}', cmdStop: '${nope}'", 2),
    ],
)
def test_an_unknown_macro_brings_no_second_problem(keys: str, count: int) -> None:
    """llamadoze does not report what follows from it, such as a missing port."""
    problems = refused(f"models: {{m: {{{keys}}}}}")
    assert len(problems) == count
    assert all("unknown macro '${nope}'" in problem for problem in problems)


NOTHING = "nothing is served: there is no model below models:"
EDGE = "; '%s' is at the left edge: indent it below models:"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("\n\n", ""),
        ("# a\n# models: {}\n", ""),
        ("---\n", ""),
        ("~\n", ""),
        ("models:\n", ""),
        ("models: {}\n", ""),
        ("startPort: 9000\n", ""),
        ("models:\nqwen:\n  cmd: sh ${PORT}\n", EDGE % "qwen"),
        ("qwen:\n  proxy: http://127.0.0.1:9\n", EDGE % "qwen"),
        ("model:\n  m:\n    cmd: sh ${PORT}\n", "; write models: for 'model:'"),
        ("Models:\n  m:\n    cmd: sh ${PORT}\n", "; write models: for 'Models:'"),
    ],
)
def test_a_file_that_serves_nothing_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The check and the daemon name the likely reason, if llamadoze can see it."""
    file = tmp_path / "f.yaml"
    file.write_text(text)
    status, lines = check(file)
    assert (status, lines[0]) == (1, f"{file}:1:1: {NOTHING}{reason}")
    assert lines[-1] == f"{file}: refused, 1 problem"
    assert start(file) == (1, lines[:-1])


def test_a_file_with_peers_only_serves_them(tmp_path: Path) -> None:
    """A file without models is accepted if it has peers."""
    file = tmp_path / "f.yaml"
    file.write_text("peers: {p: {proxy: 'http://127.0.0.1:9', models: [a]}}\n")
    assert check(file) == (0, [f"{file}: good, no models"])
