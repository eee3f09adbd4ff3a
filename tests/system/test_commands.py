"""Commands that talk to a daemon, as an operator types them."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import stub_command
from tests.pace import slowness
from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, Process, run, started, wait_for, write

KEY = "sk-of-an-operator"
EXPECTED = "expected http://HOST:PORT, https://... or unix:PATH"
TO_LISTEN = "expected HOST:PORT, such as 127.0.0.1:8080, or unix:PATH"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Process]:
    """A daemon that its user has started, with folders of its own."""
    models = {"chat": stub(sleeps=True, aliases=["c"]), "code": stub("--talk", "0.01")}
    with started("--config", write(folder, models=models), env=home(folder)) as process:
        yield process


def home(folder: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}


def asked(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the same user."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLAMADOZE")}
    return run(*arguments, env={**env, **home(folder), **more}, cwd=folder)


def test_models_are_shown_by_ps(daemon: Process, folder: Path) -> None:
    """`ps` shows the models that run, and finds the daemon without options."""
    assert asked(folder, "load", "c").stdout == "chat: ready\n"
    shown = asked(folder, "ps")
    assert shown.returncode == 0
    head, row, rest = shown.stdout.splitlines()
    assert head.split() == "MODEL STATE SINCE IN FLIGHT WAITING MEMORY READY IN".split()  # noqa: SIM905 -- as printed
    assert row.split()[:2] == ["chat", "ready"]
    assert not [line for line in shown.stdout.splitlines() if line != line.rstrip()]
    assert rest == "1 stopped model: 'llamadoze ps --all'"
    assert "code" in asked(folder, "ps", "--all").stdout
    (told,) = json.loads(asked(folder, "ps", "c", "--json").stdout)
    assert (told["id"], told["state"]) == ("chat", "ready")


def test_ps_takes_less_than_a_fifth_of_a_second(daemon: Process, folder: Path) -> None:
    """The fastest of five runs counts, because other programs share the machine."""
    asked(folder, "ps")
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert asked(folder, "ps").returncode == 0
        took.append(time.monotonic() - began)
    assert min(took) < 0.2 * slowness()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["load", "chat"], "chat: ready"),
        (["sleep", "chat"], "chat: asleep"),
        (["wake", "chat"], "chat: ready"),
        (["pin", "chat", "--for", "90s"], "chat: pinned for 90 s; 'llamadoze unpin' ends it"),
        (["unpin", "chat"], "chat: unpinned"),
        (["unpin", "chat"], "chat: was not pinned"),
        (["unload", "chat"], "chat: stopped"),
        (["unload", "--all"], "all models: stopped"),
        (["pause"], "paused: requests wait until 'llamadoze resume'"),
        (["resume"], "resumed"),
    ],
)
def test_a_step_is_taken_and_said(
    daemon: Process, folder: Path, arguments: list[str], line: str
) -> None:
    """The command prints one line when the step is complete."""
    result = asked(folder, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{line}\n", "")
    if arguments != ["pause"]:
        asked(folder, "load", "chat")


@pytest.mark.parametrize(
    "words", ["load", "wake", "sleep", "unload", "pin", "unpin", "run", "logs", "logs -f", "ps"]
)
@pytest.mark.parametrize(
    ("name", "meant"), [("chta", "did you mean 'chat'?"), ("kode", "did you mean 'code'?")]
)
def test_an_unknown_model_is_told_what_may_be_meant(
    daemon: Process, folder: Path, words: str, name: str, meant: str
) -> None:
    """By every command that takes a model."""
    result = asked(folder, *words.split(), name, *["hello"][: words == "run"])
    what = "there is no log" if words.startswith("logs") else "no model is called"
    said = f"llamadoze: {what} '{name}'; {meant}\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", said)


def test_every_command_prints_json(daemon: Process, folder: Path) -> None:
    """Programs can read the output of every command."""
    (folder / "trace.csv").write_text("1,chat\n2,code\n")
    (folder / "llama-server").write_text("#!/bin/sh\n")
    (folder / "llama-server").chmod(0o755)
    for words in (
        *("ps", "status", "top", "load chat", "sleep chat", "wake chat", "pin chat", "unpin chat"),
        *("unload chat", "pause", "resume", "reload", "version", "check", "support"),
        *("run code hello", "init --output other.yaml", "simulate --trace trace.csv"),
    ):
        result = asked(folder, *words.split(), "--json", PATH=f"{folder}:{os.environ['PATH']}")
        assert result.returncode == 0, (words, result.stderr)
        json.loads(result.stdout)


def test_who_waits_for_the_end_of_a_pause_is_told(daemon: Process, folder: Path) -> None:
    """A waiting command says at once that llamadoze is paused; a load goes on after the pause."""
    asked(folder, "pause")
    waiting = subprocess.Popen(
        [LLAMADOZE, "load", "chat"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **home(folder)},
    )
    try:
        assert waiting.stderr is not None
        said = b"llamadoze is paused; 'llamadoze resume' ends the pause\n"
        assert waiting.stderr.readline() == said
        asked(folder, "resume")
        assert waiting.communicate(timeout=10) == (b"chat: ready\n", b"")
    finally:
        waiting.kill()
        waiting.communicate()


def test_why_a_model_has_failed_is_below_the_table(tmp_path: Path) -> None:
    """The reason comes with the command that shows more."""
    models = {"bad": {"cmd": "sh -c 'exit 3'", "proxy": "http://127.0.0.1:9"}}
    file = write(tmp_path, models=models)
    with started("--config", file, env=home(tmp_path)):
        assert asked(tmp_path, "load", "bad").returncode == 1
        shown = asked(tmp_path, "ps").stdout
        assert "bad: process exited with status 3" in shown
        assert "see 'llamadoze logs bad'" in shown


def test_a_model_that_could_not_be_ended_is_not_said_to_be_stopped(tmp_path: Path) -> None:
    """The second unload gives up what is left of it; the model has failed then."""
    port = free_port(1)
    elsewhere = {"cmd": "true", "detached": True, "cmdStop": "false", "unloadTimeout": 1}
    models = {
        "a": {**elsewhere, "proxy": f"http://127.0.0.1:{port}", "aliases": ["x"]},
        "b": stub(),
    }
    why = f"a server that answers at http://127.0.0.1:{port} could not be ended: it was asked to"
    with (
        subprocess.Popen(shlex.split(stub_command("--port", str(port)))) as server,
        started("--config", write(tmp_path, models=models), env=home(tmp_path)),
    ):
        asked(tmp_path, "load", "a")
        first = asked(tmp_path, "unload", "x")
        assert (first.returncode, first.stdout) == (1, "")
        second = asked(tmp_path, "unload", "x")
        assert (second.returncode, second.stderr) == (0, "")
        assert second.stdout.startswith(f"x: failed: {why}")
        told = json.loads(asked(tmp_path, "unload", "a", "--json").stdout)
        assert (told["state"], told["failure"][: len(why)]) == ("failed", why)
        lines = asked(tmp_path, "unload", "--all").stdout.splitlines()
        assert (lines[0][: len(why) + 11], lines[1:]) == (
            f"a: failed: {why}",
            ["all other models: stopped"],
        )
        told = json.loads(asked(tmp_path, "unload", "--all", "--json").stdout)
        assert [one["model"] for one in told["failed"]] == ["a"]
        server.kill()


@pytest.mark.parametrize("words", ["ps", "top --once", "status", "unpin x", "reload", "load x"])
def test_what_is_not_llamadoze_is_told_in_a_line(words: str) -> None:
    """The command recognises any other program that answers at the address."""
    port = free_port(1)
    with subprocess.Popen(shlex.split(stub_command("--port", str(port)))) as other:
        try:
            wait_for(lambda: "refused" not in run("ps", "--url", f"127.0.0.1:{port}").stderr)
            found = run(*words.split(), "--url", f"http://127.0.0.1:{port}")
        finally:
            other.kill()
    assert found.returncode in (1, 3)
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith("llamadoze: ")


def test_a_daemon_with_a_folder_of_its_own_is_found(tmp_path: Path) -> None:
    """A daemon with its own state folder is found like others, and by its folder or its file."""
    file, own = write(tmp_path, models={"a": stub()}), str(tmp_path / "own")
    elsewhere = {"LLAMADOZE_URL": "http://127.0.0.1:9"}
    with started("--config", file, "--state-dir", own, env=home(tmp_path)) as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        for words in ((), ("--state-dir", own), ("--config", file)):
            told = json.loads(asked(tmp_path, "status", "--json", *words).stdout)
            assert told["url"] == url
        for words in (("--state-dir", own), ("--config", file)):  # options win
            assert asked(tmp_path, "ps", *words, **elsewhere).returncode == 0
        assert asked(tmp_path, "ps", **elsewhere).returncode == 3
    gone = asked(tmp_path, "ps", "--config", file)
    assert gone.returncode == 3
    assert gone.stderr.endswith(
        f"no running llamadoze of this user or of the system serves {file}\n"
    )
    with started("--config", file, env=home(tmp_path)):
        at = tmp_path / "state" / "llamadoze"
        wait_for(lambda: not list(at.glob("at-*")))


def test_a_chat_is_streamed(daemon: Process, folder: Path) -> None:
    """The prompt may come from arguments, from standard input, or from both."""
    result = asked(folder, "run", "code", "say", "much")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()
    piped = subprocess.run(
        [LLAMADOZE, "run", "code"],
        input="hello",
        capture_output=True,
        text=True,
        env={**os.environ, **home(folder)},
        check=True,
    )
    assert piped.stdout.strip()
    empty = subprocess.run(
        [LLAMADOZE, "run", "code"],
        input="",
        capture_output=True,
        text=True,
        env={**os.environ, **home(folder)},
        check=False,
    )
    assert empty.returncode == 2


def test_a_frame_has_models_and_decisions(daemon: Process, folder: Path) -> None:
    """The frame shows which model was started or woken, and for which request."""
    asked(folder, "load", "code")
    frame = asked(folder, "top", "--once").stdout
    assert "Host memory" in frame
    assert "Last decisions" in frame
    assert any(line.split()[1:2] == ["code"] for line in frame.splitlines())


def test_a_live_frame_ends_with_q(daemon: Process, folder: Path) -> None:
    """The terminal is then as it was before."""
    screen, own = pty.openpty()
    process = subprocess.Popen(
        [LLAMADOZE, "top", "--interval", "0.2"],
        stdin=own,
        stdout=own,
        stderr=own,
        env={**os.environ, **home(folder), "TERM": "xterm"},
    )
    os.close(own)
    seen = b""
    try:
        while seen.count(b"in flight") < 2:
            assert select.select([screen], [], [], 10)[0], seen
            seen += os.read(screen, 65536)
        os.write(screen, b"q")
        assert process.wait(5) == 0
    finally:
        process.kill()
        os.close(screen)


def test_logs_are_shown_and_followed(daemon: Process, folder: Path) -> None:
    """The command shows the last lines of the daemon or of a model, and then new ones."""
    asked(folder, "load", "chat")
    lines = asked(folder, "logs", "-n", "2").stdout.splitlines()
    assert len(lines) == 2
    entries = [json.loads(line) for line in asked(folder, "logs", "--json").stdout.splitlines()]
    assert [one["level"] for one in entries if str(one.get("event")).startswith("<chat> Model")]
    asked(folder, "run", "code", "hello")
    output = asked(folder, "logs", "code", "--json").stdout.splitlines()
    assert all(json.loads(line).keys() == {"line"} for line in output)
    assert asked(folder, "logs", "nobody").stderr.startswith("llamadoze: there is no log 'nobody'")
    following = subprocess.Popen(
        [LLAMADOZE, "logs", "-f", "proxy", "-n", "0"],
        stdout=subprocess.PIPE,
        env={**os.environ, **home(folder)},
    )
    try:
        assert following.stdout is not None
        while True:  # it may begin to follow only after the first of these
            asked(folder, "unload", "chat")
            if select.select([following.stdout], [], [], 0.3)[0]:
                break
        assert b"chat" in following.stdout.readline()
    finally:
        following.kill()
        following.wait()
        if following.stdout is not None:
            following.stdout.close()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        *((words, 0) for words in ("ps --all", "ps --all --json", "top --once", "status", "logs")),
        *((words, 0) for words in ("logs -f", "run code hi", "load chat", "--help", "ps --help")),
        *((words, 0) for words in ("version", "schema", "completion bash", "check config.yaml")),
        ("check bad.yaml", 1),
        ("load nobody", 1),
        ("pss", 2),
    ],
)
def test_a_reader_that_has_gone_is_no_fault(
    daemon: Process, folder: Path, words: str, status: int
) -> None:
    """The status says what the command has done, as far as it got."""
    (folder / "bad.yaml").write_text("maxWait: soon\n")
    ours, theirs = os.pipe()
    os.close(ours)
    result = subprocess.run(
        [LLAMADOZE, *words.split()],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, **home(folder)},
        cwd=folder,
        timeout=20,
        check=False,
    )
    os.close(theirs)
    assert (result.returncode, bool(result.stderr)) == (status, words in ("load nobody", "pss"))


def test_a_reload_says_what_has_changed(daemon: Process, folder: Path) -> None:
    """`reload` shows the changes; a file with a fault changes nothing, and its problems appear."""
    file = folder / "config.yaml"
    text = file.read_text()
    file.write_text(f"{text}maxWait: 7\n")
    assert asked(folder, "reload", "--dry-run").stdout.splitlines() == [
        "maxWait: default -> 7",
        "nothing is changed yet: run 'llamadoze reload' to do so",
    ]
    assert asked(folder, "reload").stdout.splitlines()[-1] == "reloaded"
    assert asked(folder, "reload").stdout == "nothing has changed\n"
    file.write_text(f"{text}maxWait: soon\n")
    result = asked(folder, "reload")
    assert result.returncode == 1
    assert "maxWait: expected whole seconds" in result.stdout
    file.write_text(text)


def test_names_of_models_complete(daemon: Process, folder: Path) -> None:
    """The shell completes the names that the daemon lists."""
    found = asked(
        folder, _LLAMADOZE_COMPLETE="bash_complete", COMP_WORDS="llamadoze load co", COMP_CWORD="2"
    )
    assert found.stdout == "plain,code\n"
    for shell in ("bash", "zsh", "fish"):
        assert "llamadoze" in asked(folder, "completion", shell).stdout


def test_a_file_for_a_bug_report_has_no_secrets(folder: Path, tmp_path: Path) -> None:
    """With and without a daemon, the file has versions, machine, configuration and log."""
    models = {"a": {**stub(), "env": ["HF_TOKEN=hf-secret"]}}
    file = write(tmp_path, models=models, apiKeys=[KEY])
    with started("--config", file, env=home(tmp_path)):
        refused = asked(tmp_path, "ps")
        assert refused.returncode == 4
        assert refused.stderr.endswith("Set LLAMADOZE_API_KEY to a valid key\n")
        result = asked(tmp_path, "support", "-o", "report.txt", LLAMADOZE_API_KEY=KEY)
        assert result.stdout == "wrote report.txt: read it before you pass it on\n"
    (tmp_path / "alone").mkdir()
    without = asked(tmp_path, "support", "-o", "-").stdout
    for text in ((tmp_path / "report.txt").read_text(), without):
        assert KEY not in text
        assert "hf-secret" not in text
        for title in ("versions", "machine", "configuration"):
            assert f"==== {title}" in text
        assert "apiKeys" in text
    assert "Listening on" in (tmp_path / "report.txt").read_text()


def test_a_daemon_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """The exit status is 3, which only this error has."""
    for words in ("ps", "status", "top --once", "load x", "logs", "run x hi", "pause", "reload"):
        result = asked(tmp_path, *words.split(), LLAMADOZE_URL="http://127.0.0.1:9")
        assert (result.returncode, result.stdout) == (3, ""), words
        assert result.stderr == (
            "llamadoze: no llamadoze answers at http://127.0.0.1:9: Connection refused; start one "
            "with 'llamadoze serve', or give another address with --url\n"
        )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--port 80", "llamadoze: --port: unknown option; did you mean --listen?"),
        ("-port=80", "llamadoze: -port: unknown option; did you mean --listen?"),
        ("serve --confg x", "llamadoze serve: --confg: unknown option; did you mean --config?"),
        ("ps --server x", "llamadoze ps: --server: unknown option; did you mean --url?"),
        ("pss", "llamadoze: pss: unknown command; did you mean 'ps'?"),
        ("sp", "llamadoze: sp: unknown command; did you mean 'ps'?"),
        ("start", "llamadoze: start: unknown command; did you mean 'serve'?"),
        ("ls", "llamadoze: ls: unknown command; did you mean 'ps --all'?"),
        ("ps --url ftp://x", f"llamadoze ps: --url ftp://x: {EXPECTED}"),
        ("load x --url http://", f"llamadoze load: --url http://: {EXPECTED}"),
        ("ps --url http://x:port", f"llamadoze ps: --url http://x:port: {EXPECTED}"),
        ("ps --url unix:", f"llamadoze ps: --url unix:: {EXPECTED}"),
        ("serve --config x --listen 80", f"llamadoze serve: --listen 80: {TO_LISTEN}"),
        ("demo --listen x:y", f"llamadoze demo: --listen x:y: {TO_LISTEN}"),
        ("--config none.yaml --listen 80", f"llamadoze: --listen 80: {TO_LISTEN}"),
        ("xyzzy", "llamadoze: xyzzy: unknown command; 'llamadoze --help' lists them"),
        ("unload", "llamadoze unload: nothing to unload: give either a MODEL or --all"),
    ],
)
def test_a_wrong_command_line_is_told_what_may_be_meant(words: str, line: str) -> None:
    """The exit status is 2."""
    result = run(*words.split())
    assert (result.returncode, result.stderr.splitlines()[0]) == (2, line)


def test_a_malformed_variable_is_told_as_an_option_is(tmp_path: Path) -> None:
    """With the name of the variable."""
    result = asked(tmp_path, "ps", LLAMADOZE_URL="localhost:x")
    line = f"llamadoze ps: LLAMADOZE_URL localhost:x: {EXPECTED}"
    assert (result.returncode, result.stderr.splitlines()[0]) == (2, line)


def test_half_of_a_certificate_is_a_wrong_command_line(tmp_path: Path) -> None:
    """As another wrong option."""
    file = write(tmp_path, models={"a": stub()})
    result = run("serve", "--config", file, "--tls-key-file", "key.pem")
    line = "llamadoze serve: HTTPS needs both --tls-cert-file and --tls-key-file"
    assert (result.returncode, result.stderr.splitlines()[0]) == (2, line)


def test_every_command_has_help() -> None:
    """The help says what the command is for."""
    text = run("--help").stdout
    commands = [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines() if line]
    names = [name for name in commands if name.isalpha() and name != "Examples"]
    assert {"serve", "ps", "top", "run", "init", "demo"} <= {*names, "init"}
    for name in ("serve", "ps", "top", "run", "logs", "check", "simulate", "completion"):
        shown = run(name, "--help")
        assert shown.returncode == 0
        assert "Usage: llamadoze" in shown.stdout


def test_of_several_daemons_one_must_be_named(tmp_path: Path) -> None:
    """An operator names the daemon by its folder, its file or its address."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = write(tmp_path / "one", models={"a": stub()})
    second = write(tmp_path / "two", models={"b": stub()})
    with (
        started("--config", first, env=home(tmp_path)),
        started("--config", second, env=home(tmp_path)),
    ):
        unsure = asked(tmp_path, "ps")
        assert unsure.returncode == 1
        assert "several daemons run; choose one with --url or --config: http://" in unsure.stderr
        assert "b  " in asked(tmp_path, "ps", "--all", "--config", second).stdout
        near = run("ps", "--all", env={**os.environ, **home(tmp_path)}, cwd=tmp_path / "one")
        assert "a  " in near.stdout
    assert asked(tmp_path, "ps").returncode == 3
